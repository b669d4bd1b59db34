"""The whole pipeline on one screen."""

from dataclasses import asdict
from pathlib import Path

# Not `tfx.v1`: it imports Google Cloud's client library, which takes three seconds and is not needed here.
from tfx.components import ExampleValidator, StatisticsGen, Trainer
from tfx.orchestration.pipeline import Pipeline
from tfx.proto import trainer_pb2

from components.comparison import KEPT_SCHEMA_FILE, STATISTICS_FOLDER
from components.data_gate import DataGate
from components.evaluation import GatedEvaluator
from components.formats import ModelFormats
from components.image_files import images_digest
from components.ingestion import ImageExampleGen
from components.metadata_schema import MetadataSchemaGen
from components.publishing import local_copy, newest
from components.pusher import AtomicPusher
from components.remembered import SPLITS_FILE
from components.report.component import Report
from components.run_summary import About
from components.serving_checker import ServingCheck
from components.source import code_digest, source_digest
from components.transform import ImageTransform
from pipeline.config import Config
from trainer.backbones import BACKBONES, weights_digest
from trainer.cache_names import IN_SERVICE_FOLDER

# What is in service, or what was published last, is looked up when these run: a cached answer would be an old one.
NEVER_CACHED = (
    "MetadataSchemaGen",
    "DataGate",
    "GatedEvaluator",
    "ModelFormats",
    "ServingCheck",
    "AtomicPusher",
    "Report",
)


def create_pipeline(
    config: Config,
    *,
    images: list[str],
    digest: str,
    root: str,
    serving: str,
    schema_folder: str,
    cache: str | None,
    notes: str = "",
    name: str | None = None,
    afresh: str | None = None,
    **options,
) -> Pipeline:
    """Builds the graph.

    Args:
      config: everything that a person chooses.
      images: image folders and manifests (`Sources.places`).
      digest: of their content, and of the splits remembered; empty where the cache is off.
      root: where artifacts go.
      serving: base path of published versions, or a URI.
      schema_folder: path or URI; holds the kept metadata schema, the small classes' splits and the statistics of what
        was published.
      cache: a folder in which the Trainer keeps features and what it needs to go on after it was killed; None where
        the steps run on machines that share no folder.
      notes: the run's folder, where the runner keeps the times of the steps; empty where it does not.
      name: of the pipeline in ML Metadata; None for that of the configuration.
      afresh: what training is told apart by from earlier ones of the same inputs; None where those may stand for it.
      **options: for `Pipeline`: cache, Beam arguments.
    """
    about = About(images, images_digest(digest), code_digest(), config.resolved)
    # Class folders in; encoded examples in three splits, their metadata without bytes, their schema, a quarantine out.
    example_gen = ImageExampleGen(
        images=images,
        digest=digest,
        settings=ingestion_settings(config),
        splits_file=f"{schema_folder}/{SPLITS_FILE}",
        code=source_digest("components.ingestion"),
    )
    # Statistics, schema and validation look at the metadata only, never at image bytes.
    statistics = StatisticsGen(examples=example_gen.outputs["metadata"])
    kept_schema, published_statistics = f"{schema_folder}/{KEPT_SCHEMA_FILE}", f"{schema_folder}/{STATISTICS_FOLDER}"
    schema = MetadataSchemaGen(statistics=statistics.outputs["statistics"], kept_schema=kept_schema)
    validator = ExampleValidator(statistics=statistics.outputs["statistics"], schema=schema.outputs["schema"])
    # Stops here, before anything expensive, when the data is not what it was.
    data_gate = DataGate(
        statistics=statistics.outputs["statistics"],
        schema=schema.outputs["schema"],
        anomalies=validator.outputs["anomalies"],
        on_anomaly=config.data.on_anomaly,
        drift_threshold=config.data.drift_threshold,
        serving=serving,
        published_statistics=published_statistics,
        kept_schema=kept_schema,
    )
    # Decode, resize, store; labels by sorted class name.
    transform = ImageTransform(
        examples=example_gen.outputs["examples"],
        schema=example_gen.outputs["schema"],
        settings=transform_settings(config),
        code=source_digest("components.transform"),
    ).with_id("Transform")
    transform.add_upstream_node(data_gate)
    # Frozen backbone, then its top fine-tuned.
    trainer = Trainer(
        run_fn="trainer.run.run_fn",
        examples=transform.outputs["transformed_examples"],
        transform_graph=transform.outputs["transform_graph"],
        schema=example_gen.outputs["schema"],
        train_args=trainer_pb2.TrainArgs(splits=["train"]),
        eval_args=trainer_pb2.EvalArgs(splits=["eval"]),
        custom_config=training_settings(config, in_service(config, serving, cache), cache, serving, afresh),
    )
    # The test split decides, against the model in service.
    evaluator = GatedEvaluator(
        examples=example_gen.outputs["examples"],
        model=trainer.outputs["model"],
        schema=example_gen.outputs["schema"],
        serving=serving,
        rules=config.evaluation.model_dump(mode="json"),
    )
    # What was blessed in further formats, each compared with it.
    formats = ModelFormats(
        model=trainer.outputs["model"],
        model_run=trainer.outputs["model_run"],
        blessing=evaluator.outputs["blessing"],
        transformed_examples=transform.outputs["transformed_examples"],
        settings=format_settings(config),
    )
    # What would be published answers in a process of its own as it did here.
    serving_check = ServingCheck(
        model=trainer.outputs["model"],
        model_run=trainer.outputs["model_run"],
        model_blessing=evaluator.outputs["blessing"],
        evaluation=evaluator.outputs["evaluation"],
        examples=example_gen.outputs["examples"],
        schema=example_gen.outputs["schema"],
        formats=formats.outputs["formats"],
    )
    # Only what was blessed twice goes out, whole or not at all.
    pusher = AtomicPusher(
        model=trainer.outputs["model"],
        model_blessing=evaluator.outputs["blessing"],
        infra_blessing=serving_check.outputs["infra_blessing"],
        evaluation=evaluator.outputs["evaluation"],
        model_run=trainer.outputs["model_run"],
        catalog=example_gen.outputs["catalog"],
        statistics=statistics.outputs["statistics"],
        schema=schema.outputs["schema"],
        serving=serving,
        published_statistics=published_statistics,
        kept_schema=kept_schema,
        keep=config.push.keep,
        about=card_facts(config, about),
        formats=formats.outputs["formats"],
    )
    # What happened, as one page.
    report = Report(
        catalog=example_gen.outputs["catalog"],
        examples=example_gen.outputs["examples"],
        result=data_gate.outputs["result"],
        model_run=trainer.outputs["model_run"],
        evaluation=evaluator.outputs["evaluation"],
        formats=formats.outputs["formats"],
        infra_blessing=serving_check.outputs["infra_blessing"],
        pushed_model=pusher.outputs["pushed_model"],
        about=about,
        notes=notes,
    )
    prepare = [example_gen, statistics, schema, validator, data_gate, transform]
    steps = [*prepare, trainer, evaluator, formats, serving_check, pusher, report]
    return Pipeline(pipeline_name=name or config.name, pipeline_root=root, components=steps, **options)


def ingestion_settings(config: Config) -> dict:
    """What ImageExampleGen reads of the configuration."""
    data = config.data
    return {
        "rules": asdict(config.split_rules),
        "max_pixels": data.max_pixels,
        "max_bytes": data.max_bytes,
        "follow_symlinks": data.follow_symlinks,
        "spans": data.spans,
    }


def transform_settings(config: Config) -> dict:
    """What `preprocessing_fn` and the Trainer read of the configuration, `auto` resolved."""
    own = BACKBONES[config.model.backbone].normalisation
    return {
        "image_size": config.image_size,
        "resize": config.transform.resize,
        "storage": config.transform.storage,
        "normalisation": asdict(own) if config.transform.normalisation == "backbone" else None,
    }


def card_facts(config: Config, about: About) -> dict:
    """What a model card says besides what the steps find out."""
    transform = transform_settings(config)
    return {
        "name": config.name,
        "license": config.push.license,
        "input": {"size": transform["image_size"], "resize": transform["resize"]},
        "digest": about.digest,
        "code": about.code,
        "configuration": about.configuration,
    }


def in_service(config: Config, serving: str, cache: str | None) -> Path | None:
    """A local folder of the version in service, if training begins with it; None if not, or where there is none.

    None also where the Trainer runs elsewhere: it looks itself, as another version may be in service by then.
    """
    if config.training.start_from == "backbone" or cache is None:
        return None
    return newest(local_copy(serving, Path(cache, IN_SERVICE_FOLDER)))


def format_settings(config: Config) -> dict:
    """What ModelFormats reads of the configuration."""
    return {
        "formats": config.push.formats,
        "max_accuracy_drop": config.push.max_format_accuracy_drop,
        "image_size": config.image_size,
        "storage": config.transform.storage,
    }


def training_settings(
    config: Config, in_service: Path | None, cache: str | None, serving: str | None = None, afresh: str | None = None
) -> dict:
    """What `trainer.run.run_fn` takes.

    Args:
      config: everything that a person chooses.
      in_service: folder of the version to begin with, or None.
      cache: as for `create_pipeline`.
      serving: as for `create_pipeline`.
      afresh: as for `create_pipeline`.
    """
    looks_itself = config.training.start_from != "backbone" and cache is None
    return {
        "model": config.model.model_dump(mode="json"),
        "training": config.training.model_dump(mode="json"),
        "transform": transform_settings(config),
        "start_from": str(in_service) if in_service else None,
        "serving": serving if looks_itself else None,
        "cache": cache,
        "weights_digest": weights_digest(config.model.weights),
        "code": source_digest("trainer.run"),
    } | ({"afresh": afresh} if afresh else {})

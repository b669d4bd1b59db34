"""Where Apache Beam runs: what `runner.beam` stands for. Nothing heavy is imported."""

BEAM_ARGUMENTS = {
    # Named, because Beam's default tries to download another runner first.
    "local": ["--runner=FnApiRunner"],
    "processes": ["--runner=FnApiRunner", "--direct_running_mode=multi_processing", "--direct_num_workers=0"],
}

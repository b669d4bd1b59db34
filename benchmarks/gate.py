"""How often the gate decides by noise, and what it cannot see: the tables of docs/gate.md, in Markdown.

    python benchmarks/gate.py [--trials 2000] [--retrained]

Simulated pairs of models of known accuracy, whose errors go together as those of retrained networks do. `--retrained`
trains pairs of small networks on scikit-learn's digits instead, and says how often two of one recipe are told apart.
"""

import argparse

import numpy as np
from simulated_models import TOGETHER, Pairs

from components.gate import Decision, GateRules, Images, decide, detectable_drop
from components.gate_terms import COMPARABLE
from components.metrics import Answers, calibration_error

SIZES = (50, 200, 1000)
CLASSES = (2, 10, 100)
BASELINE = 0.85


def refused(decision: Decision, prefix: str = "no_regression_") -> bool:
    return any(check.metric.startswith(prefix) and check.passed is False for check in decision.checks)


def rate(pairs: Pairs, trials: int, rules: GateRules | None = None) -> float:
    return float(np.mean([refused(decide(pairs.draw(), rules or GateRules())) for _ in range(trials)]))


def decisions(trials: int) -> None:
    print(f"Refused by a comparison, in %, default rules, baseline {BASELINE:.2f}, {trials} pairs each:\n")
    columns = ["better by 2", "equal", "worse by 2", "worse by 5", "worse by 10", "one class worse by 20"]
    print(f"| test images | classes | models differ on | {' | '.join(columns)} |")
    print(f"| --- | --- | --- |{' --- |' * len(columns)}")
    for count in SIZES:
        for classes in CLASSES:
            cells = [f"{100 * differing(Pairs(count, classes, (BASELINE, BASELINE))):.0f} %"]
            for change in (0.02, 0.0, -0.02, -0.05, -0.1):
                cells.append(percent(rate(Pairs(count, classes, (BASELINE + change, BASELINE)), trials)))
            weak = Pairs(count, classes, (BASELINE, BASELINE), weak_class=0.2)
            cells.append(percent(rate(weak, trials)))
            print(f"| {count} | {classes} | {' | '.join(cells)} |", flush=True)


def differing(pairs: Pairs) -> float:
    """Share of the images on which exactly one of the models is right."""
    return float(np.mean([_differing(pairs.draw()).mean() for _ in range(50)]))


def _differing(images: Images) -> np.ndarray:
    return (images.candidate.ids == images.labels) != (images.baseline.ids == images.labels)


def percent(share: float) -> str:
    return f"{100 * share:.1f}"


def independent_errors(trials: int) -> None:
    print("\nThe same for models whose errors have nothing in common, 10 classes:\n")
    print("| test images | models differ on | equal | worse by 2 | worse by 5 | worse by 10 |")
    print("| --- | --- | --- | --- | --- | --- |")
    for count in SIZES:
        cells = [f"{100 * differing(Pairs(count, 10, (BASELINE, BASELINE), 0.0)):.0f} %"]
        for change in (0.0, -0.02, -0.05, -0.1):
            cells.append(percent(rate(Pairs(count, 10, (BASELINE + change, BASELINE), 0.0), trials)))
        print(f"| {count} | {' | '.join(cells)} |", flush=True)


def everything_compared(trials: int) -> None:
    print(f"\nWith all five metrics compared, 10 classes, {trials} pairs each:\n")
    print("| test images | equal | worse by 2 | worse by 5 | worse by 10 |\n| --- | --- | --- | --- | --- |")
    rules = GateRules(no_regression=COMPARABLE)
    for count in SIZES:
        changes = (0.0, -0.02, -0.05, -0.1)
        rates = [rate(Pairs(count, 10, (BASELINE + change, BASELINE)), trials, rules) for change in changes]
        print(f"| {count} | {' | '.join(map(percent, rates))} |", flush=True)


def floor(trials: int) -> None:
    print("\nRefused by the default floor, in %, of 2 equal classes (answering one class would score 0.50):\n")
    accuracies = (0.5, 0.55, 0.6, 0.7, 0.8)
    print(f"| test images | {' | '.join(map(str, accuracies))} |\n| --- |{' --- |' * len(accuracies)}")
    random = np.random.default_rng(0)
    for count in SIZES:
        labels, cells = np.arange(count) % 2, []
        for accuracy in accuracies:
            times = 0
            for _ in range(trials):
                ids = np.where(random.random(count) < accuracy, labels, 1 - labels)
                answers = Answers(ids, np.full(count, 0.7), np.full(count, 0.5))
                times += refused(decide(Images(labels, ("a", "b"), answers), GateRules()), "accuracy_lower_bound")
            cells.append(percent(times / trials))
        print(f"| {count} | {' | '.join(cells)} |", flush=True)


def smallest_drops(draws: int = 40) -> None:
    print("\nSmallest drop in accuracy noticed with a probability of 80 %, in points, 2 classes:\n")
    print("| test images | errors independent | errors of retrained models |\n| --- | --- | --- |")
    for count in (25, *SIZES, 5000):
        cells = []
        for together in (0.0, TOGETHER):
            pairs = Pairs(count, 2, (BASELINE, BASELINE), together)
            drawn = [pairs.draw() for _ in range(draws)]
            found = [detectable_drop(images, decide(images, GateRules())) for images in drawn]
            cells.append(f"{100 * np.median(found):.1f}")
        print(f"| {count} | {' | '.join(cells)} |", flush=True)


def calibration_noise(trials: int) -> None:
    print("\nExpected calibration error measured of a model that knows its chances exactly, 10 classes:\n")
    print("| test images | median | 95th percentile |\n| --- | --- | --- |")
    for count in SIZES:
        pairs, found = Pairs(count, 10, (BASELINE, BASELINE)), []
        for _ in range(trials):
            images = pairs.draw()
            found.append(calibration_error(images.candidate.scores, images.candidate.ids == images.labels))
        print(f"| {count} | {np.median(found):.3f} | {np.quantile(found, 0.95):.3f} |", flush=True)


# ---- real networks --------------------------------------------------------------------------------------------------


def retrained(pairs: int) -> None:
    """Networks of one recipe, and of that recipe with fewer images, on digits that none was trained on."""
    from sklearn.datasets import load_digits
    from sklearn.neural_network import MLPClassifier

    images, labels = load_digits(return_X_y=True)
    images, names = images / 16, [str(digit) for digit in range(10)]
    recipes = {"the same recipe, other seed": 500, "half of the images": 250, "a quarter of the images": 125}
    compared = {"default": GateRules()} | {name: GateRules(no_regression=[name]) for name in COMPARABLE}
    rows = {(count, title): [] for count in SIZES for title in recipes}
    for seed in range(pairs):
        order = np.random.default_rng(seed).permutation(len(labels))
        test = order[: SIZES[-1]]

        def answers(count: int, seed: int, test: np.ndarray = test, order: np.ndarray = order) -> Answers:
            train = order[-count:]
            model = MLPClassifier((64,), max_iter=300, random_state=seed).fit(images[train], labels[train])
            probabilities = model.predict_proba(images[test])
            true_scores = probabilities[np.arange(len(test)), labels[test]]
            return Answers(probabilities.argmax(axis=1), probabilities.max(axis=1), true_scores)

        before = answers(500, seed)
        for title, train in recipes.items():
            after = answers(train, 1000 + seed)
            for count in SIZES:
                both = [Answers(*(values[:count] for values in vars(each).values())) for each in (after, before)]
                pair = Images(labels[test[:count]], names, *both)
                found = [refused(decide(pair, rules)) for rules in compared.values()]
                rows[count, title].append([(after.ids == labels[test]).mean(), _differing(pair).mean(), *found])
    print(f"Pairs of real networks, 10 digits, {pairs} pairs each; refused by a comparison of, in %:\n")
    print(f"| test images | candidate | accuracy | models differ on | {' | '.join(compared)} |")
    print(f"| --- | --- | --- | --- |{' --- |' * len(compared)}")
    for (count, title), found in rows.items():
        accuracy, differ, *rates = np.mean(found, axis=0)
        print(f"| {count} | {title} | {accuracy:.3f} | {percent(differ)} % | {' | '.join(map(percent, rates))} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=2000)
    parser.add_argument("--retrained", action="store_true")
    arguments = parser.parse_args()
    if arguments.retrained:
        retrained(arguments.trials // 20)
        return
    decisions(arguments.trials)
    independent_errors(arguments.trials)
    everything_compared(arguments.trials // 10)
    floor(arguments.trials)
    smallest_drops()
    calibration_noise(arguments.trials)


if __name__ == "__main__":
    main()

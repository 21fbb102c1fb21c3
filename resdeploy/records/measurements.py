"""What was measured, and on which machine."""

from __future__ import annotations

from resdeploy.records.base import Record
from resdeploy.records.inputs import DataFacts


class Flip(Record):
    """An image on which candidate and reference answer differently (class indices).

    reference_margin, candidate_margin: the logit of a model's own answer, less that of the
    other's.
    """

    id: str
    reference: int
    candidate: int
    label: int | None = None
    reference_margin: float | None = None
    candidate_margin: float | None = None


class ClassHits(Record):
    """The images of one class (its index), and how many of them each model gets right."""

    label: int
    images: int
    reference: int
    candidate: int


class Measured(Record):
    """What was measured: the name it is reported by, and its path (empty for a module)."""

    name: str
    path: str


class DriftFigures(Record):
    """How far a candidate's logits are from the reference's on the same images.

    Fractions are of `samples`. `sqnr_db` is 10·log10(Σ reference² / Σ (candidate −
    reference)²), null where the two are identical; `nonfinite` counts the outputs
    that are NaN or infinite in either, and where it is not 0 the comparisons are null.

    agreement_lower_95, agreement_upper_95: of the agreement on all images (Wilson).
    top1_lost, top1_gained: images that the reference alone, or the candidate alone, gets right.
    top1_drop_lower_95, top1_drop_upper_95: of the difference in top-1 (Tango). mcnemar_p: how
    likely so unequal numbers of them are if neither model is better.
    ties: images on which two logits of a model are its largest. kl_mean, kl_max: divergence of
    the candidate's softmax from the reference's, of one image, in nats.
    top1_lower_95, top1_upper_95: of the candidate's top-1 (Wilson). per_class: the classes that
    have images, in order; empty without labels.
    """

    samples: int
    nonfinite: int
    max_abs: float | None
    mean_abs: float | None
    sqnr_db: float | None
    cosine_min: float | None
    top1_agreement: float | None
    flips: int | None
    flipped: tuple[Flip, ...]
    top1_reference: float | None
    top1_candidate: float | None
    top5_reference: float | None
    top5_candidate: float | None
    agreement_lower_95: float | None = None
    agreement_upper_95: float | None = None
    top1_lost: int | None = None
    top1_gained: int | None = None
    top1_drop_lower_95: float | None = None
    top1_drop_upper_95: float | None = None
    mcnemar_p: float | None = None
    ties: int | None = None
    kl_mean: float | None = None
    kl_max: float | None = None
    top1_lower_95: float | None = None
    top1_upper_95: float | None = None
    per_class: tuple[ClassHits, ...] = ()


class DriftRecord(DriftFigures, Measured):
    """The drift of an artifact, the images it was found on, and whether the model is trained.

    runtime: who ran it; empty in results of before this was kept.
    """

    runtime: str = ""
    sha256: str
    data: DataFacts
    trained: bool


class TimingFigures(Record):
    """Raw durations of one runner, after `warmup` untimed runs, and what they come to.

    spread: 1.4826 · MAD / median of the samples. note: why they may not be trusted.
    """

    warmup: int
    samples_ns: tuple[int, ...]
    p50_ms: float
    p90_ms: float
    p99_ms: float
    spread: float
    note: str = ""


class Load(Record):
    """What else the cores of a process did while it measured.

    cores: the numbers of those that it may use. others, steal: the shares of them that other
    processes used, and that the hypervisor gave away. mhz: their clock at the end, where it is
    told. busy: why a timing of then says little; empty on a quiet machine.
    """

    cores: tuple[int, ...]
    others: float
    steal: float
    mhz: float | None
    busy: tuple[str, ...] = ()


class LatencyRecord(TimingFigures, Measured):
    """Timings of one runner at one batch size.

    speedup: the p50 of `over`, the fastest of the baselines that were timed, over its own.
    throttled: why the clocks of the GPU that it ran on were held down meanwhile. load: of the
    machine; None in results of before this was kept.
    """

    runtime: str
    batch: int
    threads: int
    images_per_s: float
    speedup: float
    over: str = "eager"
    throttled: tuple[str, ...] = ()
    load: Load | None = None


class ThroughputFigures(Record):
    """Several streams of the same file at once, for `seconds`.

    inferences: all that began and ended within. p50_ms, p99_ms: of one of them while the others
    run; None where none ended.
    """

    streams: int
    seconds: float
    inferences: int
    images_per_s: float
    p50_ms: float | None
    p99_ms: float | None


class ThroughputRecord(ThroughputFigures, Measured):
    """The same of an artifact at one batch size; threads: of each stream."""

    runtime: str
    batch: int
    threads: int
    load: Load | None = None


class Ratio(Record):
    """How many times as long a candidate takes, and the interval that holds it 99 times of 100."""

    value: float
    lower_99: float
    upper_99: float


class SideBySide(Record):
    """A candidate, a baseline, and that baseline again in another session, timed in turn.

    p50, p99: of the candidate over the baseline, of the usual time and of the slow ones. noise:
    what two sessions of the same file differ by, as a ratio of 1 or more, by which the intervals
    are wider. slower_p: how likely such times are if the candidate is no slower, by the signed-
    rank test.
    """

    rounds: int
    baseline_p50_ms: float
    candidate_p50_ms: float
    p50: Ratio
    p99: Ratio
    noise: float
    slower_p: float
    baseline_ns: tuple[int, ...]
    again_ns: tuple[int, ...]
    candidate_ns: tuple[int, ...]
    load: Load | None = None
    throttled: tuple[str, ...] = ()


class Paid(Record):
    """How long an INT8 file takes beside its float source, one image at a time.

    ratio: of the medians, INT8 over float; below 1 it pays. int8_macs_share: see
    QuantizationFacts. note: why the timings may not be trusted.
    """

    runtime: str
    threads: int
    rounds: int
    float_p50_ms: float
    int8_p50_ms: float
    ratio: float
    int8_macs_share: float | None
    note: str = ""


class MachineFacts(Record):
    """Where something ran. Timings compare only where all of these fields are equal."""

    cpu: str
    cores: int
    flags: tuple[str, ...]
    memory_gib: int
    os: str
    python: str
    versions: dict[str, str]

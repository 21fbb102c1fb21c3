"""Reference of the deterministic fill, the probe inputs and the comparison (numpy only).

Every state_dict entry is filled from its KEY and SHAPE alone, never from its
position: the generator is ``default_rng(crc32(key))``.  Rules, first match wins
(``last`` is the part of the key after its last dot):

1. last == "num_batches_tracked"  -> 0, int64
2. two or more dimensions         -> N(0,1) * sqrt(2 / fan_in), fan_in = prod(shape[1:])
3. last == "running_var" or "v"   -> uniform(0.5, 1.5)
4. last == "weight" (1-D, a norm) -> uniform(0.5, 1.5) * 0.35 if the key contains
                                     "bn3.", "norm3." or "conv3.", else * 0.75
5. anything else (bias, running_mean, tau) -> N(0,1) * 0.1

Draws are made in float64, C order, and rounded ONCE to float32; a float64 run
uses these float32 values widened to float64 (load_state_dict, then .double()).
Weights are in the PyTorch layout (out, in/groups, kh, kw) and input is NCHW.
"""

import gzip
import json
import math
import zlib

import numpy as np

PROBES = {"even": (1234, (2, 3, 64, 64)), "odd": (4321, (1, 3, 75, 97))}


def fill(key, shape):
    """The array for one state_dict entry."""
    last, shape = key.rsplit(".", 1)[-1], tuple(shape)
    rng = np.random.default_rng(zlib.crc32(key.encode()))
    if last == "num_batches_tracked":
        return np.zeros(shape, np.int64)
    if len(shape) >= 2:
        x = rng.standard_normal(shape) * math.sqrt(2.0 / math.prod(shape[1:]))
    elif last in ("running_var", "v"):
        x = rng.uniform(0.5, 1.5, shape)
    elif last == "weight":
        damped = any(s in key for s in ("bn3.", "norm3.", "conv3."))
        x = rng.uniform(0.5, 1.5, shape) * (0.35 if damped else 0.75)
    else:
        x = rng.standard_normal(shape) * 0.1
    return np.asarray(x, np.float32)


def probe_input(which="even", hw=None):
    """A probe's input, float32 NCHW; pass hw=record["probe"][which]["hw"]."""
    seed, shape = PROBES[which]
    return np.random.default_rng(seed).standard_normal(
        shape[:2] + tuple(hw or shape[2:]), dtype=np.float32
    )


def load(path):
    """The whole data file, as a dict."""
    with gzip.open(path, "rt", encoding="utf-8") as f:
        return json.load(f)


def compare(record, logits, rtol, which="even"):
    """Compare logits (N, classes) with a record; returns (ok, worst, field).

    float64 logits are held against the float64 run where there is one, others
    against the float32 run.  Each difference is divided by the record's mean
    absolute logit (the sum's by that times the number of logits).
    """
    probe, y = record["probe"][which], np.asarray(logits)
    ref = probe.get("float64") if y.dtype == np.float64 else None
    ref, y = ref or probe["float32"], y.astype(np.float64)
    if list(y.shape) != probe["shape"]:
        return False, math.inf, "shape"
    got = summary(y)
    worst, field = 0.0, ""
    for name, want in ref.items():
        scale = ref["abs_mean"] * (y.size if name == "sum" else 1)
        d = float(np.max(np.abs(np.asarray(got[name]) - np.asarray(want)))) / scale
        if not d <= worst:
            worst, field = d, name
    return worst <= rtol, worst, field


def summary(y):
    """The recorded numbers of a (N, classes) array of logits."""
    y = np.asarray(y, np.float64)
    out = {f"logits{i}": y[i, :8].tolist() for i in range(len(y))}
    out.update(sum=float(y.sum()), abs_mean=float(np.abs(y).mean()), std=float(y.std()))
    return out

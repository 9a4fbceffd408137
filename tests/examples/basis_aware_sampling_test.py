"""Tests of basis-aware truncation: published values, the proof it claims, failures, the script."""

import importlib.util
import itertools
import pathlib
import subprocess
import sys

import numpy as np
import pytest
from scipy.optimize import OptimizeResult

ROOT = pathlib.Path(__file__).parents[2]
SCRIPT = ROOT / "examples/basis_aware_sampling.py"
spec = importlib.util.spec_from_file_location("basis_aware_sampling", SCRIPT)
bat = importlib.util.module_from_spec(spec)
spec.loader.exec_module(bat)

GOLDEN = np.load(ROOT / "tests/golden/basis_aware.npz")
CASES = ["tiny_v12_d3", "v30_d6", "v20_d2"]
SUPPORTS = {
  False: ("highs_min_sigma_no_lower_bound", "in_support_official_no_lower_bound"),
  True: ("highs_min_sigma_nonneg", "in_support_with_p_nonneg"),
}


@pytest.mark.parametrize("case", CASES)
def test_golden_thresholds(case):
  p = GOLDEN[f"{case}/probs"]
  ours = {
    "greedy": bat.top_k_threshold(p, 1),
    "eta0.05": bat.eta_threshold(p, 0.05),
    "eta0.3": bat.eta_threshold(p, 0.3),
    "nucleus0.9": bat.nucleus_threshold(p, 0.9),
    "nucleus0.5": bat.nucleus_threshold(p, 0.5),
    "topk3": bat.top_k_threshold(p, 3),
  }
  for name, threshold in ours.items():
    assert threshold == pytest.approx(float(GOLDEN[f"{case}/threshold_{name}"]), abs=1e-10)
  for name in ("epsilon0.05", "nucleus0.9", "eta0.3"):
    kept = bat.truncated(p, ours.get(name, 0.05))
    np.testing.assert_allclose(kept, GOLDEN[f"{case}/truncated_probs_{name}"], atol=1e-10)


@pytest.mark.parametrize("nonnegative", [False, True])
@pytest.mark.parametrize("case", CASES)
def test_golden_support(case, nonnegative):
  p, embedding = GOLDEN[f"{case}/probs"], GOLDEN[f"{case}/embedding"]
  inflation_key, support_key = SUPPORTS[nonnegative]
  inflation = np.array(
    [bat.least_inflation(p, embedding, t, nonnegative=nonnegative) for t in range(len(p))]
  )
  theirs = GOLDEN[f"{case}/{inflation_key}"]
  np.testing.assert_allclose(inflation, np.where(np.isnan(theirs), np.inf, theirs), rtol=1e-6)
  for threshold in ("0.01", "0.05", "0.1", "0.2", "0.5"):
    limit = 1 / (1 - float(threshold))
    ours = (p >= float(threshold)) | (inflation > limit)
    plain = GOLDEN[f"{case}/eps{threshold}/plain_epsilon_support"]
    np.testing.assert_array_equal(bat.truncated(p, float(threshold)) > 0, plain)
    expected = GOLDEN[f"{case}/eps{threshold}/{support_key}"]
    clear = np.abs(inflation - limit) > 1e-6
    np.testing.assert_array_equal(ours[clear], expected[clear])
  support = bat.basis_aware_support(p, embedding, 0.1, nonnegative=nonnegative)
  np.testing.assert_array_equal(support, GOLDEN[f"{case}/eps0.1/{support_key}"])


def test_what_is_proved_is_true():
  rng = np.random.default_rng(0)
  kept = 0
  for _ in range(4):
    embedding, truth, p = bat.synthetic_model(rng, tokens=24, d=8)
    np.testing.assert_allclose(embedding.T @ p, embedding.T @ truth, atol=1e-6)
    possible = truth > 0
    tau = 1 - np.min(p[possible] / truth[possible])
    support = bat.basis_aware_support(p, embedding, tau)
    assert not (support & ~possible).any()
    assert (support | ~(p >= tau)).all()  # at least what the threshold keeps
    kept += support.sum() - (p >= tau).sum()
  assert kept > 0


def test_fewer_constraints_prove_less():
  p, embedding = GOLDEN["v30_d6/probs"], GOLDEN["v30_d6/embedding"]
  supports = [bat.basis_aware_support(p, embedding, 0.05, columns=c) for c in (1, 3, 6)]
  assert all((more | ~few).all() for few, more in itertools.pairwise(supports))
  np.testing.assert_array_equal(supports[-1], bat.basis_aware_support(p, embedding, 0.05))
  weak = bat.basis_aware_support(p, embedding, 0.05, nonnegative=False)
  assert (supports[-1] | ~weak).all()


def test_a_failed_solver_raises_and_an_infeasible_program_proves(monkeypatch):
  # Two tokens on one feature: no q without the first token has the features of p.
  assert bat.least_inflation(np.array([0.01, 0.99]), np.array([[1.0], [0]]), 0) == np.inf
  failed = OptimizeResult(status=4, message="Numerical difficulties.", fun=None)
  monkeypatch.setattr(bat, "linprog", lambda *args, **kwargs: failed)
  with pytest.raises(RuntimeError, match="HiGHS decided nothing about token 3: Numerical"):
    bat.least_inflation(np.full(5, 0.2), np.eye(5), 3)


def test_the_script_runs():
  command = [sys.executable, SCRIPT, "--models", "2", "--tokens", "16", "--features", "5"]
  done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
  assert "2 models of 16 tokens" in done.stdout and "the last model at tau = 0.1" in done.stdout

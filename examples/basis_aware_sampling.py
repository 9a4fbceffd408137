"""Which tokens a language model proves possible: basis-aware truncation beside plain truncation.

A softmax over V tokens on d < V features cannot express every distribution. Trained to the minimum
of its loss it still gets the features right, E^T p = E^T p*, where p* is the truth and E [V, d]
the output embedding. Suppose it underestimates no token by more than a factor, p >= (1 - tau) p*.
Then a token t with p_t > tau is possible, p*_t > 0, because p* sums to one: the reason behind
sampling above a threshold. The features prove more: t is possible where no q has

  E^T q = E^T p,   sum q = 1,   q_t = 0,   0 <= q <= p / (1 - tau),

a linear program a token. So tokens below the threshold are kept if the model must mean them.

Run it: python examples/basis_aware_sampling.py
Source: Finlayson et al. 2024, arXiv:2310.01693.
"""

import argparse

import numpy as np
from scipy.optimize import linprog, minimize
from scipy.special import entr, log_softmax, softmax

OPTIMAL, INFEASIBLE = 0, 2  # states of scipy.optimize.linprog


def eta_threshold(p, epsilon):
  """Returns min(epsilon, sqrt(epsilon) exp(-H)): a spread out distribution is cut less."""
  return min(epsilon, np.sqrt(epsilon) * np.exp(-entr(p).sum()))


def nucleus_threshold(p, mass):
  """Returns the smallest probability among the likeliest tokens that together reach the mass."""
  likeliest = np.sort(p)[::-1]
  return likeliest[np.sum(np.cumsum(likeliest) < mass)]


def top_k_threshold(p, k):
  """Returns the probability of the k-th likeliest token; greedy decoding is k = 1."""
  return np.sort(p)[-k]


def truncated(p, threshold):
  """Returns p without the tokens below the threshold, normalised; zeros if it keeps none."""
  kept = np.where(p >= threshold, p, 0)
  return kept / kept.sum() if kept.any() else kept


def least_inflation(p, embedding, token, *, nonnegative=True):
  """Returns the least s such that some q <= s p gives the token nothing and the same features.

  Infinite where no q at all does; the token is possible where s > 1 / (1 - tau).

  Args:
    nonnegative: False drops q >= 0 as the published sampler does, which proves less.
  """
  v = len(p)
  features = np.vstack([embedding.T, np.ones(v)])
  bounds = [(0 if nonnegative else None, None)] * v + [(None, None)]
  bounds[token] = (0, 0)
  result = linprog(
    np.append(np.zeros(v), 1.0),
    A_ub=np.hstack([np.eye(v), -p[:, None]]),
    b_ub=np.zeros(v),
    A_eq=np.hstack([features, np.zeros((len(features), 1))]),
    b_eq=features @ p,
    bounds=bounds,
    method="highs",
  )
  if result.status == OPTIMAL:
    return result.fun
  if result.status == INFEASIBLE:
    return np.inf
  raise RuntimeError(f"HiGHS decided nothing about token {token}: {result.message}")


def basis_aware_support(p, embedding, threshold, *, nonnegative=True, columns=None):
  """Tells of every token whether it is kept: by its probability, or by a proof.

  Args:
    columns: uses that many left singular vectors of the embedding instead of all its features;
      fewer constraints prove less, and faster. Published with 20.
  """
  if columns is not None:
    embedding = np.linalg.svd(embedding, full_matrices=False)[0][:, :columns]
  kept = p >= threshold
  limit = 1 / (1 - threshold)
  for token in np.flatnonzero(~kept):
    kept[token] = least_inflation(p, embedding, token, nonnegative=nonnegative) > limit
  return kept


def fitted(embedding, truth):
  """Returns the softmax of features that minimise the cross-entropy: E^T p is E^T p* there."""

  def loss(h):
    logits = embedding @ h
    return -truth @ log_softmax(logits), embedding.T @ (softmax(logits) - truth)

  start = np.zeros(embedding.shape[1])
  found = minimize(loss, start, jac=True, method="BFGS", options={"gtol": 1e-9})
  return softmax(embedding @ found.x)


def synthetic_model(rng, tokens=40, d=8):
  """Returns an embedding, a truth in which half of the tokens are impossible, and the fit to it."""
  embedding = rng.normal(size=(tokens, d)) / np.sqrt(d)
  logits = 2 * embedding @ rng.normal(size=d)
  impossible = np.argsort(logits + rng.gumbel(size=tokens))[: tokens // 2]
  truth = softmax(logits + 0.2 * rng.normal(size=tokens))
  truth[impossible] = 0
  truth /= truth.sum()
  return embedding, truth, fitted(embedding, truth)


def report(seed, models, tokens, d):
  """Prints how many tokens either rule keeps, and how many of them are impossible."""
  rng = np.random.default_rng(seed)
  made = [synthetic_model(rng, tokens, d) for _ in range(models)]
  inflations = [[least_inflation(p, e, t) for t in range(tokens)] for e, _, p in made]
  print(f"{models} models of {tokens} tokens, half of them impossible, on {d} features")
  print("   tau   threshold keeps (wrong)   basis-aware keeps (wrong)")
  for tau in (0.02, 0.05, 0.1, 0.2, 0.4, None):
    rows = []
    for (_, truth, p), inflation in zip(made, inflations, strict=True):
      possible = truth > 0
      # None: the least tau with which p >= (1 - tau) p*, so that no rule can be wrong.
      level = 1 - np.min(p[possible] / truth[possible]) if tau is None else tau
      plain = p >= level
      aware = plain | (np.array(inflation) > 1 / (1 - level))
      rows.append([n for kept in (plain, aware) for n in (kept.sum(), (kept & ~possible).sum())])
    plain, wrong, aware, aware_wrong = np.mean(rows, axis=0)
    name = "  true" if tau is None else f"{tau:6.2f}"
    print(f"{name} {plain:12.1f} ({wrong:.1f}) {aware:24.1f} ({aware_wrong:.1f})")
  print("\nthe last model at tau = 0.1 (T: kept by the threshold, B: by the proof alone)")
  _, truth, p = made[-1]
  for token in np.argsort(-p)[:16]:
    mark = "T" if p[token] >= 0.1 else "B" if inflations[-1][token] > 1 / 0.9 else " "
    state = f"truth {truth[token]:.3f}" if truth[token] else "impossible"
    print(f"  {mark} {p[token]:.3f} {'#' * round(100 * p[token]):40s} {state}")


def main():
  """Reads the flags and prints the report."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--seed", type=int, default=0)
  parser.add_argument("--models", type=int, default=8)
  parser.add_argument("--tokens", type=int, default=40)
  parser.add_argument("--features", type=int, default=12)
  flags = parser.parse_args()
  report(flags.seed, flags.models, flags.tokens, flags.features)


if __name__ == "__main__":
  main()

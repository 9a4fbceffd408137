"""The approximate posterior against published numbers, the formulas, and misfits."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.scipy.special import digamma

from rankbias import gp

GOLDEN = np.load(pathlib.Path(__file__).parents[1] / "golden" / "logistic_softmax.npz")
EXACT = {"rtol": 1e-8, "atol": 1e-8}


class TestGolden:
  """keanson/revisit-logistic-softmax, from its recorded random initial state."""

  kernel, labels = GOLDEN["mean_field/K"], GOLDEN["mean_field/labels"]

  def initial(self):
    names = {"gamma": "gamma", "alpha": "alpha", "tilt": "tilde_f", "omega": "omega", "mean": "mu"}
    own = {name: jnp.asarray(GOLDEN[f"mean_field/init_{old}"]) for name, old in names.items()}
    return gp.MeanField(covariance=jnp.asarray(GOLDEN["mean_field/sigma0"]), **own)

  @pytest.mark.parametrize("tau", [0.2, 1])
  @pytest.mark.parametrize("prior_mean", [0, -1])
  @pytest.mark.parametrize("steps", [1, 2, 30])
  def test_mean_field(self, tau, prior_mean, steps):
    options = {"temperature": tau, "prior_mean": prior_mean, "jitter": 0.0}
    state = gp.mean_field(
      self.kernel, self.labels, state=self.initial(), num_steps=steps, **options
    )
    key = f"mean_field/tau{tau}_steps{steps}_mean{prior_mean}/f64"
    np.testing.assert_allclose(state.mean, GOLDEN[f"{key}/mu"], **EXACT)
    np.testing.assert_allclose(state.covariance, GOLDEN[f"{key}/sigma"], **EXACT)

  @pytest.mark.parametrize("steps", [1, 2, 5])
  def test_published_loss_and_its_gradient_in_the_kernel(self, steps):
    """It is minus our bound but for the terms below, each of which is in their code."""
    classes, n = GOLDEN["mean_field/init_mu"].shape
    targets = jax.nn.one_hot(self.labels, classes, axis=0)

    @jax.jit
    @jax.value_and_grad
    def published(kernel, tau):
      options = {"temperature": tau, "jitter": 0.0}
      state = gp.mean_field(
        kernel,
        self.labels,
        state=self.initial(),
        num_steps=steps,
        stop_gradient=True,
        **options,
      )
      bound = gp.elbo(state, kernel, self.labels, **options)
      tilt, gamma, alpha = state.tilt, state.gamma, state.alpha
      moment = (state.mean**2 + jnp.diagonal(state.covariance, axis1=1, axis2=2)) / tau**2
      omega = (targets + gamma) * jnp.tanh(tilt / 2) / (2 * tilt)
      bound -= jnp.sum(omega * (tilt**2 - moment)) / 2  # left out, as if tilt were up to date
      bound += jnp.sum(alpha) * (1 - 1 / classes)  # expects l to be alpha / C^2
      bound += n * jnp.log(classes) - classes * n / 2  # constants left out
      bound -= jnp.sum(gamma * jnp.log1p(1e-6 / gamma))  # 1e-6 inside logarithms
      bound -= jnp.sum((targets + gamma) * jnp.log1p(1e-6 / jnp.cosh(tilt / 2)))
      return -bound

    for tau in (0.2, 1):
      value, grad = published(jnp.asarray(self.kernel), tau)
      key = f"negative_elbo/tau{tau}_steps{steps}/f64"
      np.testing.assert_allclose(value, GOLDEN[f"{key}/y"], **EXACT)
      expected = GOLDEN[f"{key}/grad_K"]  # not symmetric there; only its symmetric part is defined
      np.testing.assert_allclose(grad, (expected + expected.swapaxes(1, 2)) / 2, **EXACT)

  def test_prediction(self):
    support, query, mean, covariance = (
      GOLDEN[f"gp_predict/f64/{name}"]
      for name in ("z_support", "z_query", "support_mu", "support_sigma")
    )
    state = self.initial()._replace(mean=mean[None], covariance=covariance[None])
    kernel = support @ support.T + 0.1 * np.eye(len(support))
    test = query @ query.T + 0.1 * np.eye(len(query))
    found = gp.posterior(state, kernel[None], (support @ query.T)[None], test[None], jitter=0.0)
    np.testing.assert_allclose(found[0][0], GOLDEN["gp_predict/f64/mean"], **EXACT)
    np.testing.assert_allclose(found[1][0], GOLDEN["gp_predict/f64/cov"], **EXACT)


def test_update_is_the_formula_with_inverses(toy):
  """With a prior mean, and one kernel per class."""
  _, labels, kernel = toy(3)
  kernel = kernel * np.array([1.0, 2.0, 0.5])[:, None, None] + 0.01 * np.eye(12)
  tau, a, targets = 0.7, -1.5, np.eye(3)[labels].T
  options = {"temperature": tau, "prior_mean": a, "jitter": 0.0}
  old = gp.mean_field(kernel, labels, num_steps=2, **options)
  new = gp.mean_field_update(old, kernel, labels, **options)
  tilt = np.sqrt(old.mean**2 + np.diagonal(old.covariance, axis1=1, axis2=2)) / tau
  gamma = np.exp(digamma(old.alpha)[None] - old.mean / (2 * tau)) / (6 * np.cosh(tilt / 2))
  for c in range(3):
    inverse = np.linalg.inv(kernel[c])
    covariance = np.linalg.inv(inverse + np.diag(old.omega[c]) / tau**2)
    mean = covariance @ ((targets[c] - gamma[c]) / (2 * tau) + inverse @ np.full(12, a))
    np.testing.assert_allclose(new.covariance[c], covariance, rtol=1e-8, atol=1e-9)
    np.testing.assert_allclose(new.mean[c], mean, rtol=1e-8)
  np.testing.assert_allclose(new.gamma, gamma, rtol=1e-10)
  np.testing.assert_allclose(new.alpha, 1 + gamma.sum(0), rtol=1e-10)
  np.testing.assert_allclose(new.omega, (targets + gamma) * np.tanh(tilt / 2) / (2 * tilt))


@pytest.mark.parametrize("tau", [1e-3, 1e3])
def test_extreme_temperatures_stay_finite(toy, tau):
  _, labels, kernel = toy()
  state = gp.mean_field(kernel, labels, temperature=tau)
  assert all(np.isfinite(leaf).all() for leaf in state)
  assert np.isfinite(gp.elbo(state, kernel, labels, temperature=tau))


@pytest.mark.parametrize(
  ("arguments", "message"),
  [
    ({"kernel": np.eye(4)}, r"kernel of shape \(4, 4\).*give \[classes, n, n\]"),
    ({"kernel": np.zeros((2, 5, 5))}, r"labels of shape \(4,\)"),
    ({"labels": np.array([0, 1, 2, 0])}, r"must lie in 0..1"),
    ({"temperature": 0.0}, "temperature = 0.0 must be positive"),
  ],
)
def test_misfits_are_refused(arguments, message):
  right = {"kernel": np.stack([np.eye(4)] * 2), "labels": np.array([0, 1, 0, 1])}
  with pytest.raises(ValueError, match=message):
    gp.mean_field(**right | arguments)

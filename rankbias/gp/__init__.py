"""Gaussian-process classification with the logistic-softmax likelihood, by mean-field updates.

The model of n labels y among C classes, with one latent function f_c per class:

    f_c ~ N(a, K_c)        p(y = c | f) = s(f_c / tau) / sum_k s(f_k / tau)

with s the logistic sigmoid. Auxiliary variables make it conjugate in f. The denominator is an
integral over l, 1 / S = int_0^inf exp(-l S) dl. Each factor exp(-l s(f)) = exp(-l) exp(l s(-f)) is
a sum over m ~ Poisson(l) of s(-f)^m. Each sigmoid is a mixture over a Polya-Gamma variable w:

    s(f)^y s(-f)^m = 2^-(y + m) exp((y - m) f / 2) int exp(-w f^2 / 2) PG(w | y + m, 0) dw

Mean field approximates the posterior by q(f) q(l) q(m, w); with f / tau in place of f,

    q(f_c) = N(mean, covariance)     q(l) = Gamma(alpha, rate C)     q(m) = Poisson(gamma)
    q(w | m) = PG(y + m, tilt)       E w = omega = (y + gamma) tanh(tilt / 2) / (2 tilt)

Classes come first: mean [C, n], covariance and kernel [C, n, n]. All functions are pure, in nats,
can be jitted and can be differentiated in the kernel, temperature and prior mean. `jitter` is added
to the diagonal of a kernel where it is factorised, so pass the same to all functions. A kernel that
is not positive definite gives NaN; in float32 it may take a larger jitter.

Source: Ke et al. 2023, arXiv:2310.10379; the augmentation is that of Galy-Fajou et al. 2019,
arXiv:1905.09670.
"""

from rankbias.gp.bound import elbo
from rankbias.gp.factors import MeanField
from rankbias.gp.mean_field import mean_field, mean_field_init, mean_field_update
from rankbias.gp.prediction import posterior, predictive_probabilities

__all__ = [
  "MeanField",
  "elbo",
  "mean_field",
  "mean_field_init",
  "mean_field_update",
  "posterior",
  "predictive_probabilities",
]

"""K-means with spread seeds and no empty cluster that a point could fill, under jit."""

import jax
import jax.numpy as jnp

from rankbias.ops.categorical import draw

BLOCK = 2**22  # distances held at once; more points are visited block by block


def seeds(key, points, num_clusters):
  """Chooses `num_clusters` of the points, each with probability ~ squared distance to the others.

  Fewer distinct points than clusters leave repeated seeds.
  Source: Arthur & Vassilvitskii 2007, "k-means++: the advantages of careful seeding".
  """
  pick, more = jax.random.split(key)
  first = points[jax.random.randint(pick, (), 0, points.shape[0])]
  uniform = jax.random.uniform(more, (num_clusters, 1), points.dtype)

  def distance(centre):
    return jnp.sum((points - centre[None]) ** 2, -1)

  def choose(i, state):
    centres, nearest = state
    chosen = points[draw(uniform[i], jnp.log(nearest)[None])[0]]
    return centres.at[i].set(chosen), jnp.minimum(nearest, distance(chosen))

  start = jnp.tile(first[None], (num_clusters, 1)), distance(first)
  return jax.lax.fori_loop(1, num_clusters, choose, start)[0]


def kmeans(points, centres, num_iterations):
  """Alternates assignment and means until nothing moves; returns (centres, index of the nearest).

  A cluster that lost its points restarts at the point farthest from its centre, the next one at
  the second farthest; it stays empty where every point already lies on a centre.
  Source: Lloyd 1982, "Least squares quantization in PCM".
  """
  clusters = centres.shape[0]
  scale = jnp.mean(jnp.sum((points - jnp.mean(points, 0, keepdims=True)) ** 2, -1))

  def step(state):
    i, centres, nearest, _ = state
    count = jax.ops.segment_sum(jnp.ones_like(points[:, 0]), nearest, clusters)
    mean = jax.ops.segment_sum(points, nearest, clusters) / jnp.maximum(count, 1)[:, None]
    error = jnp.sum((points - centres[nearest]) ** 2, -1)
    error, far = jax.lax.top_k(error, min(clusters, points.shape[0]))
    place = (jnp.cumsum(count == 0) - 1) % far.shape[0]
    useful = error[place] > 1e-10 * scale
    restart = jnp.where(useful[:, None], points[far[place]], centres)
    centres = jnp.where((count == 0)[:, None], restart, mean)
    moved = assign(points, centres)
    return i + 1, centres, moved, jnp.any(moved != nearest)

  start = 0, centres, assign(points, centres), True
  state = jax.lax.while_loop(lambda s: s[3] & (s[0] < num_iterations), step, start)
  return state[1], state[2]


def assign(points, centres):
  """Returns the index of the nearest centre of every point, the first one of several."""
  origin = jnp.mean(centres, 0)  # distances are differences of squares: keep those small
  centres = centres - origin[None]
  square = jnp.sum(centres**2, -1)

  def nearest(point):
    inner = jnp.dot(centres, point - origin, precision="highest")
    return jnp.argmin(square - 2 * inner)

  return jax.lax.map(nearest, points, batch_size=max(1, BLOCK // centres.shape[0]))

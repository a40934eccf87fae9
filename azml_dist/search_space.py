"""Where the values of a hyperparameter come from: the classes for the search space of `azml_dist.sweep`."""

from azml_dist.model.search_space import Choice as Choice
from azml_dist.model.search_space import LogNormal as LogNormal
from azml_dist.model.search_space import LogUniform as LogUniform
from azml_dist.model.search_space import Normal as Normal
from azml_dist.model.search_space import QLogNormal as QLogNormal
from azml_dist.model.search_space import QLogUniform as QLogUniform
from azml_dist.model.search_space import QNormal as QNormal
from azml_dist.model.search_space import QUniform as QUniform
from azml_dist.model.search_space import Randint as Randint
from azml_dist.model.search_space import Space as Space
from azml_dist.model.search_space import Uniform as Uniform

"""Private names of scikit-learn and Keras that heads use, in one place.

They may change in any release. Two more are inherited and cannot be imported from here: the class attribute
``_parameter_constraints`` and the method ``_validate_params`` of scikit-learn's ``BaseEstimator``.
Tested with scikit-learn 1.9.1 and Keras 3.15.1.
"""

from sklearn.utils._param_validation import Interval, InvalidParameterError, StrOptions
from sklearn.utils.validation import _check_sample_weight as check_sample_weight

__all__ = [
    "Interval",
    "InvalidParameterError",
    "StrOptions",
    "check_sample_weight",
    "forget_uninitialized_variables",
]


def forget_uninitialized_variables() -> None:
    """Let Keras forget variables that were built without values; the next scope would allocate them."""
    from keras.src.backend.common import global_state

    global_state.set_global_attribute("uninitialized_variables", [])

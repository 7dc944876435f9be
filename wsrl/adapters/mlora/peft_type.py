"""The member of mLoRA in PEFT's closed enumeration of methods, which ``register_peft_method`` demands."""

from peft.utils import PeftType


def extend_peft_type(name: str) -> PeftType:
    """Add a member to ``PeftType`` whose value is its name; a member that is already there is returned.

    The standard library closes enumerations; the three tables written here are what look-up by attribute, by value and
    iteration read in Python 3.10 to 3.13.
    """
    if name in PeftType.__members__:
        return PeftType[name]
    member = str.__new__(PeftType, name)
    member._name_ = member._value_ = name
    member.__objclass__ = PeftType
    member._sort_order_ = len(PeftType)
    type.__setattr__(PeftType, name, member)
    PeftType._member_names_.append(name)
    PeftType._member_map_[name] = member
    PeftType._value2member_map_[name] = member
    return member


MLORA = extend_peft_type("MLORA")

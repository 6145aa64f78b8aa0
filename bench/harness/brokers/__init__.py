"""The brokers that can be compared: how each is built, started, stopped and frozen."""

from .apache import Apache
from .process import Broker, NotMeasured
from .weirmq import Weirmq, build_weir

# In the order of their turns.
BROKERS = {broker.name: broker for broker in (Apache, Weirmq)}
APACHE, WEIRMQ = Apache.name, Weirmq.name

__all__ = ["APACHE", "BROKERS", "WEIRMQ", "Apache", "Broker", "NotMeasured", "Weirmq", "build_weir"]

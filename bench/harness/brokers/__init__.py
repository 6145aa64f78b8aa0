"""The brokers that can be compared: how each is built, started, stopped and frozen."""

from .apache import Apache
from .nats import Nats
from .process import Broker, NotMeasured
from .rocketmq_rust import RocketmqRust, RocketmqRustNoWait
from .weirmq import Weirmq, build_weir

# In the order of their turns.
BROKERS = {broker.name: broker for broker in (Apache, Weirmq, RocketmqRust, RocketmqRustNoWait, Nats)}
APACHE, WEIRMQ = Apache.name, Weirmq.name

__all__ = ["APACHE", "BROKERS", "WEIRMQ", "Broker", "NotMeasured", "Weirmq", "build_weir"]

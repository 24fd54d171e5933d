"""The exception tree. A message says what, where, expected, got, do.

ActwrightError
|- ContractError (ValueError)      two sides disagree about meaning
|- SpecError (ValueError)          a value breaks its spec
|- WireError (ValueError)          bytes that are not one of our messages
|- GrammarError (ValueError)       generated text or ids outside the model's language
|- CheckpointError (RuntimeError)  weights, keys and contract do not belong together
|- DatasetError (RuntimeError)     store, split, shard or vault is inconsistent
|- StorageError (RuntimeError)     the object store did not take or give an object
|- TrackingError (RuntimeError)    the tracking server did not answer
|- SimulatorError (RuntimeError)   a simulator could not be made, rendered or stepped
|- JobError (RuntimeError)         a launched process or cluster job ended badly; carries its last lines
|- GateError (RuntimeError)        the flow stops here on purpose: too many bad episodes, a blind model
`- NotReady (RuntimeError)         asked before loaded

Every class is picklable: no custom ``__init__`` takes more than the message, except
`GrammarError`, whose fields travel in ``args``.
"""

from __future__ import annotations


class ActwrightError(Exception):
    """The root: anything this project raises on purpose."""


class ContractError(ActwrightError, ValueError):
    """Two sides disagree about what a number, camera or name means."""


class SpecError(ActwrightError, ValueError):
    """A value breaks the spec of its field: shape, dtype, range or finiteness."""


class WireError(ActwrightError, ValueError):
    """Bytes that cannot be decoded into one of our messages within its limits."""


class GrammarError(ActwrightError, ValueError):
    """What the model wrote is not in its language.

    ``args`` is (message, start, end): the offending span in characters of the text,
    or in positions of the id sequence when ids were parsed.
    """

    @property
    def span(self) -> tuple[int, int]:
        """Start and end of the offending part; (0, 0) where no place is known."""
        return (self.args[1], self.args[2]) if len(self.args) >= 3 else (0, 0)

    def __str__(self) -> str:
        return str(self.args[0]) if self.args else ""


class CheckpointError(ActwrightError, RuntimeError):
    """Weights, keys, shapes or contract of a checkpoint do not belong together."""


class DatasetError(ActwrightError, RuntimeError):
    """A data set, split, shard or its version is missing, torn or inconsistent."""


class StorageError(ActwrightError, RuntimeError):
    """The object store did not take or give an object."""


class TrackingError(ActwrightError, RuntimeError):
    """The experiment tracker did not answer; what was to be recorded is kept locally."""


class SimulatorError(ActwrightError, RuntimeError):
    """A simulator could not be made, rendered or stepped on this machine."""


class JobError(ActwrightError, RuntimeError):
    """A process or cluster job that we launched ended badly."""


class GateError(ActwrightError, RuntimeError):
    """A gate stopped the flow on purpose; the message lists every reason."""


class NotReady(ActwrightError, RuntimeError):  # noqa: N818
    """Asked for something before it was loaded, started or released."""


def require(claim: bool, message: str, *, got: object = None, error: type[ActwrightError] = SpecError) -> None:
    """Raise `error` with `message` (and what was got) unless `claim` holds."""
    if not claim:
        raise error(message if got is None else f"{message}, got {got}")

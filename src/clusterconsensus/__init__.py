"""One state machine, kept identical on several hosts, for as long as a majority of them lives.

Bring a state (three methods) and changes (any type); this library brings consensus, a durable log,
a network, membership and fail-over. Begin with ``Participant``.
"""

from clusterconsensus.codec import MsgpackCodec
from clusterconsensus.consensus.types import (
    Ballot,
    Configuration,
    Member,
    Role,
    Seat,
    Standing,
)
from clusterconsensus.errors import (
    ApplyError,
    BrokenInvariantError,
    ConsensusError,
    DamagedError,
    DirectoryInUseError,
    DirectoryNotEmptyError,
    DiskFullError,
    DivergedError,
    ElectionError,
    InvalidChangeError,
    MembershipError,
    NoMasterError,
    NotAppliedError,
    NotReadyError,
    Outcome,
    OutcomeUnknownError,
    OverloadedError,
    ParticipantClosedError,
    ReadFailedError,
    SessionExpiredError,
    SettingsError,
    StorageError,
    StoragePoisonedError,
    TransportError,
    WrongDirectoryError,
)
from clusterconsensus.participant import Participant
from clusterconsensus.runtime.status import (
    BecameMaster,
    Committed,
    EventHandler,
    LostMaster,
    MasterChanged,
    MembershipChanged,
    ParticipantEvent,
    Status,
    Trouble,
)
from clusterconsensus.settings import Settings
from clusterconsensus.state import Codec, Context, State
from clusterconsensus.transport.base import Receiver, Transport
from clusterconsensus.transport.tcp import TcpTransport

__version__ = "0.1.0"

__all__ = [
    "ApplyError",
    "Ballot",
    "BecameMaster",
    "BrokenInvariantError",
    "Codec",
    "Committed",
    "Configuration",
    "ConsensusError",
    "Context",
    "DamagedError",
    "DirectoryInUseError",
    "DirectoryNotEmptyError",
    "DiskFullError",
    "DivergedError",
    "ElectionError",
    "EventHandler",
    "InvalidChangeError",
    "LostMaster",
    "MasterChanged",
    "Member",
    "MembershipChanged",
    "MembershipError",
    "MsgpackCodec",
    "NoMasterError",
    "NotAppliedError",
    "NotReadyError",
    "Outcome",
    "OutcomeUnknownError",
    "OverloadedError",
    "Participant",
    "ParticipantClosedError",
    "ParticipantEvent",
    "ReadFailedError",
    "Receiver",
    "Role",
    "Seat",
    "SessionExpiredError",
    "Settings",
    "SettingsError",
    "Standing",
    "State",
    "Status",
    "StorageError",
    "StoragePoisonedError",
    "TcpTransport",
    "Transport",
    "TransportError",
    "Trouble",
    "WrongDirectoryError",
    "__version__",
]

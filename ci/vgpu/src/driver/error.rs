//! What a call can answer beside success.

/// The two vendors' codes are the same numbers for all of these.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// An argument that makes no sense.
    #[error("invalid value")]
    InvalidValue,
    /// The device, or the host, has no such memory left.
    #[error("out of memory")]
    OutOfMemory,
    /// Nothing was initialised.
    #[error("not initialized")]
    NotInitialized,
    /// There are no devices.
    #[error("no device")]
    NoDevice,
    /// There is no such device.
    #[error("invalid device")]
    InvalidDevice,
    /// An image that is none.
    #[error("invalid image")]
    InvalidImage,
    /// No context, or one that is gone.
    #[error("invalid context")]
    InvalidContext,
    /// An image without code that is executed here.
    #[error("no binary for this device")]
    NoBinary,
    /// Code that cannot be read.
    #[error("invalid code")]
    InvalidCode,
    /// A file that is not there.
    #[error("file not found")]
    FileNotFound,
    /// A handle that was never made, or is gone.
    #[error("invalid handle")]
    InvalidHandle,
    /// Not in this state.
    #[error("illegal state")]
    IllegalState,
    /// No kernel or variable of this name.
    #[error("not found")]
    NotFound,
    /// What was asked about goes on.
    #[error("not ready")]
    NotReady,
    /// A kernel or copy used memory that is not its own.
    #[error("illegal address")]
    IllegalAddress,
    /// A launch that needs more than a device has.
    #[error("launch out of resources")]
    LaunchOutOfResources,
    /// Peer access twice.
    #[error("peer access is enabled already")]
    PeerAccessEnabled,
    /// Peer access that was never enabled.
    #[error("peer access is not enabled")]
    PeerAccessNotEnabled,
    /// Host memory registered twice.
    #[error("host memory is registered already")]
    HostRegistered,
    /// Host memory that was never registered.
    #[error("host memory is not registered")]
    HostNotRegistered,
    /// A kernel used an address that is not a multiple of what it must be.
    #[error("misaligned address")]
    Misaligned,
    /// Whatever else a kernel did wrong.
    #[error("launch failed")]
    LaunchFailed,
    /// Not allowed here.
    #[error("not permitted")]
    NotPermitted,
    /// Not provided.
    #[error("not supported")]
    NotSupported,
    /// Not allowed while capturing.
    #[error("not allowed while a stream is capturing")]
    CaptureUnsupported,
    /// The capture was spoiled earlier.
    #[error("the capture was invalidated")]
    CaptureInvalidated,
    /// Two captures would become one.
    #[error("two captures would merge")]
    CaptureMerge,
    /// The capture was not begun on this stream.
    #[error("the capture was begun on another stream")]
    CaptureUnmatched,
    /// The capture forked and did not join.
    #[error("the capture was forked and not joined")]
    CaptureUnjoined,
    /// A captured operation would depend on one that is not.
    #[error("a dependency on work outside the capture")]
    CaptureIsolation,
    /// A captured operation would depend on the default stream.
    #[error("an implicit dependency on the default stream")]
    CaptureImplicit,
    /// The event is part of a capture.
    #[error("the event was recorded in a capture")]
    CapturedEvent,
    /// The capture was begun by another thread.
    #[error("the capture was begun by another thread")]
    CaptureWrongThread,
    /// A code that somebody asked for.
    #[error("code {0}, as was asked for")]
    Injected(u32),
    /// Anything else.
    #[error("unknown")]
    Unknown,
}

impl Error {
    /// The number that the call returns.
    pub fn code(self) -> u32 {
        match self {
            Self::InvalidValue => 1,
            Self::OutOfMemory => 2,
            Self::NotInitialized => 3,
            Self::NoDevice => 100,
            Self::InvalidDevice => 101,
            Self::InvalidImage => 200,
            Self::InvalidContext => 201,
            Self::NoBinary => 209,
            Self::InvalidCode => 218,
            Self::FileNotFound => 301,
            Self::InvalidHandle => 400,
            Self::IllegalState => 401,
            Self::NotFound => 500,
            Self::NotReady => 600,
            Self::IllegalAddress => 700,
            Self::LaunchOutOfResources => 701,
            Self::PeerAccessEnabled => 704,
            Self::PeerAccessNotEnabled => 705,
            Self::HostRegistered => 712,
            Self::HostNotRegistered => 713,
            Self::Misaligned => 716,
            Self::LaunchFailed => 719,
            Self::NotPermitted => 800,
            Self::NotSupported => 801,
            Self::CaptureUnsupported => 900,
            Self::CaptureInvalidated => 901,
            Self::CaptureMerge => 902,
            Self::CaptureUnmatched => 903,
            Self::CaptureUnjoined => 904,
            Self::CaptureIsolation => 905,
            Self::CaptureImplicit => 906,
            Self::CapturedEvent => 907,
            Self::CaptureWrongThread => 908,
            Self::Injected(code) => code,
            Self::Unknown => 999,
        }
    }
}

/// What a call gives.
pub type Result<T = ()> = std::result::Result<T, Error>;

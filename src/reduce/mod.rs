//! Bucketed gradient reduction: averages over ranks, overlapped with the backward pass.
//!
//! ```text
//! ready(param) ─ pack ─▶ bucket ─ all-to-all ─▶ sum one shard in f32 ─ all-gather ─▶ unpack ─▶ finish
//!                cast                            in rank order, round                 unscale, check, Σg²
//! ```
//!
//! That is how gradients of the caller's travel. Those that lie in the reducer's own memory
//! ([`Config::views`]) need no packing: threads average them where they lie.
//!
//! With a [`Sharded`] the averages stay where they were summed: each rank steps its part of the parameters,
//! whose masters and moments it alone has, and the parameters are gathered instead.
//! Over many nodes ([`Hierarchical`]) both exchanges go inside nodes and across, and nodes sum before they send.
//!
//! What travels is bf16, f16 or f32, as the plan says, or, for slow links, 8-bit integers ([`Sum::Int8`]).
//!
//! A [`BucketPlan`] says which parameters travel together and in which order; a [`Communicator`]
//! moves blocks; the [`Reducer`] drives both. A bf16 wire never means bf16 partial sums: rings that
//! add in bf16 lose 17 % of the signal at 1,024 ranks, a sum in f32 with one rounding 0.2 % at any
//! number.

mod agree;
mod attribution;
mod calibrate;
mod checks;
mod comm;
mod config;
mod core;
mod exchange;
mod feedback;
mod fixed;
mod flight;
mod in_place;
mod launch;
mod nodes;
mod outbox;
#[cfg(feature = "safetensors")]
mod outer;
mod plan;
mod quantized;
mod reducer;
pub(crate) mod reference;
mod rendezvous;
mod report;
mod sections;
mod sharded;
mod step;
mod targets;
mod trace;
mod trailer;
mod views;
mod way;
mod whole;
mod wire;

pub use attribution::Attribution;
pub use calibrate::calibrate;
#[cfg(any(feature = "nccl", feature = "rccl"))]
pub use comm::NcclComm;
#[cfg(feature = "tcp")]
pub use comm::TcpComm;
pub use comm::{
    Abort, Collective, Communicator, Fault, Hierarchical, Local, Moves, Part, Parts, Reduction,
    Section, Staged, Work, local,
};
#[cfg(feature = "mpi")]
pub use comm::{Mpi, MpiComm};
pub use config::{Config, Sum, Unscale};
pub use fixed::FixedPoint;
pub use flight::{BucketState, FlightRecord};
#[cfg(feature = "safetensors")]
pub use outer::{OnNonFinite, Outer, OuterInputs, OuterOutputs, OuterReport, Worker};
pub use plan::{Bucket, BucketPlan, Link, Param, Slot, ready_by_elements};
pub use reducer::Reducer;
pub use rendezvous::{Given, Rendezvous, hosts};
pub use report::{BucketTimes, Event, NonFinite, Phase, Reduced};
pub use sharded::Sharded;
pub use trace::Trace;

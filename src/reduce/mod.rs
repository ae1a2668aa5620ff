//! `reduce`
pub mod comm;
pub use comm::Fault;

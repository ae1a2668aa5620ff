//! The one list of device entry points. A row yields its symbol, its C++ instantiation and the
//! parameter block it takes; no kernel's name is written anywhere else.
//!
//! The CPU backend implements every row. Budget: 64 rows in all; options that are uniform over a
//! launch (bias, activation, storage type of a streamed tensor) are run-time branches, only what
//! sits in an inner loop makes a row.

pub mod gemm;
pub mod optim;
pub mod reduce;

//! halfstep for tensors of candle: a [`Linear`] layer whose products are halfstep's, and an [`Optimizer`] of candle's
//! variables. See README.md for what is lent, what is copied, and what a GPU would need.

pub mod data;
mod element;
mod lend;
mod linear;
mod optimizer;
pub mod plain;
mod products;

pub use element::Element;
pub use linear::Linear;
pub use optimizer::Optimizer;

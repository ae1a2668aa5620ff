//! Rows of `optim`.

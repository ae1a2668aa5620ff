//! Rows of `reduce`.

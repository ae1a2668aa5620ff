//! `optim`

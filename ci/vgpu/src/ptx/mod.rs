//! PTX, in waves of 32.

//! A virtual GPU: executes what the compilers really produced, with every access checked.

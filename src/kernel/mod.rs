//! What can be launched: the table of device entry points and the parameter blocks they take.
//! Depends on nothing else in the crate; `build.rs` compiles the same files.

/// Declares a parameter block. This is the crate's form of the macro: plain data that buffers can
/// hold. `build.rs` has another form, which lists the fields for the C++ side to assert.
macro_rules! block {
    ($(#[$meta:meta])* pub struct $name:ident { $($(#[$doc:meta])* pub $field:ident: $type:ty,)* }) => {
        $(#[$meta])*
        #[repr(C)]
        #[derive(Debug, Clone, Copy, PartialEq, bytemuck::Pod, bytemuck::Zeroable)]
        pub struct $name { $($(#[$doc])* pub $field: $type,)* }
        crate::dtype::element!($name);
    };
}

pub mod image;
pub mod params;
pub mod table;

/// One launch: which op, and the parameter block of one of its kernels.
#[derive(Debug, Clone, Copy)]
#[allow(clippy::large_enum_variant)] // lives for one call, behind a reference
pub(crate) enum Launch {
    Gemm(params::gemm::Block),
    Optim(params::optim::Block),
    Reduce(params::reduce::Block),
}

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
pub(crate) mod launch;
pub mod params;
pub mod table;

pub(crate) use launch::Launch;

//! Functions that are not provided; the build script lists them.

macro_rules! unprovided {
    ($name:ident) => {
        /// Not provided. Takes whatever it is given.
        #[unsafe(no_mangle)]
        pub extern "C" fn $name() -> u32 {
            crate::stubs::refuse(stringify!($name))
        }
    };
}

include!(concat!(env!("OUT_DIR"), "/stubs.rs"));

/// Says what is not provided.
pub fn refuse(name: &'static str) -> u32 {
    eprintln!("vgpu: {name} is not provided");
    crate::call::call(name, &[], || Err(halfstep_vgpu::driver::error::Error::NotSupported))
}

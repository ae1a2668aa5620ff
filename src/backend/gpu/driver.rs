//! The driver's functions, looked up once by name. The two vendors' drivers have the same functions
//! under other names, so one table serves both.
//!
//! Functions are typed to return a number, not the enumeration of a binding: drivers return codes
//! that were added after any binding was made. A library or a function that is missing is an error.

use std::ffi::{CStr, c_char, c_void};
use std::mem::ManuallyDrop;
use std::sync::Arc;

use libloading::Library;

use crate::Peak;

/// An opaque pointer of the driver's: a stream, an event, a module, a function, a graph.
pub(crate) type Handle = *mut c_void;

/// What differs between the vendors beside names of functions.
#[derive(Debug)]
pub(crate) struct Vendor {
    /// `cuda` or `hip`: the feature, and the target of images.
    pub(crate) name: &'static str,
    /// Files to look for, in order.
    pub(crate) libraries: &'static [&'static str],
    /// What to do where there is none.
    pub(crate) cure: &'static str,
    /// Column of the table of functions.
    pub(crate) column: usize,
    /// The function that names an error code.
    pub(crate) error_name: &'static str,
    /// Code for "out of memory".
    pub(crate) out_of_memory: u32,
    /// Code for "not yet" of a query.
    pub(crate) not_ready: u32,
    /// Whether an event may be asked about when the stream that it was recorded on is there no more.
    pub(crate) events_outlive_streams: bool,
    /// Codes with which an image is refused for what it is: of another device, or newer than the driver.
    pub(crate) bad_image: &'static [u32],
    /// Codes that earlier work left behind and that every later call returns: the device is lost to
    /// this process.
    pub(crate) sticky: &'static [u32],
    /// Attribute that counts the units which run blocks.
    pub(crate) units_attribute: u32,
    /// Attributes that peaks follow from: clock and memory clock in kHz, and the bus's width in bits.
    pub(crate) peak_attributes: [u32; 3],
    /// How kernels are told how much shared memory launches will ask for, where they cannot declare all that they
    /// need: the function, and the number of the property.
    pub(crate) asked_shared: Option<(&'static str, u32)>,
    /// Threads that go together, on every architecture that kernels are built for.
    pub(crate) wave: u32,
}

/// A call that failed, before it is known on which device.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Failure {
    pub(crate) call: &'static str,
    pub(crate) code: u32,
}

macro_rules! functions {
    ($($name:ident($($arg:ident: $type:ty),*) = [$cuda:literal, $hip:literal];)*) => {
        /// The functions that the crate calls, of one vendor.
        #[allow(non_snake_case)]
        struct Table { $($name: unsafe extern "C" fn($($type),*) -> u32,)* }

        impl Table {
            fn load(library: &Library, column: usize) -> Result<Self, String> {
                Ok(Self { $($name: {
                    let symbol = [$cuda, $hip][column];
                    // SAFETY: the driver's headers declare the function with these arguments and an
                    // integer result.
                    let found = unsafe { library.get::<unsafe extern "C" fn($($type),*) -> u32>(symbol.as_bytes()) };
                    *found.map_err(|_| format!("the driver has no {symbol}: it is too old"))?
                },)* })
            }
        }

        impl Driver {
            $(
                #[allow(clippy::too_many_arguments)] // the driver's own
                /// # Safety
                /// As the driver's documentation of the function says; [`Self`] only calls it.
                pub(crate) unsafe fn $name(&self, $($arg: $type),*) -> Result<(), Failure> {
                    // SAFETY: the caller's promise.
                    let code = unsafe { (self.table.$name)($($arg),*) };
                    let call = [$cuda, $hip][self.vendor.column];
                    if code == 0 { Ok(()) } else { Err(Failure { call, code }) }
                }
            )*
        }
    };
}

functions! {
    init(flags: u32) = ["cuInit", "hipInit"];
    driver_version(version: *mut i32) = ["cuDriverGetVersion", "hipDriverGetVersion"];
    device_count(count: *mut i32) = ["cuDeviceGetCount", "hipGetDeviceCount"];
    device_name(name: *mut c_char, len: i32, device: i32) = ["cuDeviceGetName", "hipDeviceGetName"];
    device_attribute(value: *mut i32, attribute: u32, device: i32) = ["cuDeviceGetAttribute", "hipDeviceGetAttribute"];
    malloc(address: *mut u64, bytes: usize) = ["cuMemAlloc_v2", "hipMalloc"];
    free(address: u64) = ["cuMemFree_v2", "hipFree"];
    host_alloc(pointer: *mut Handle, bytes: usize, flags: u32) = ["cuMemHostAlloc", "hipHostMalloc"];
    host_free(pointer: Handle) = ["cuMemFreeHost", "hipHostFree"];
    upload(to: u64, from: *const c_void, bytes: usize, stream: Handle) = ["cuMemcpyHtoDAsync_v2", "hipMemcpyHtoDAsync"];
    download(to: Handle, from: u64, bytes: usize, stream: Handle) = ["cuMemcpyDtoHAsync_v2", "hipMemcpyDtoHAsync"];
    copy(to: u64, from: u64, bytes: usize, stream: Handle) = ["cuMemcpyDtoDAsync_v2", "hipMemcpyDtoDAsync"];
    fill(to: u64, value: u8, bytes: usize, stream: Handle) = ["cuMemsetD8Async", "hipMemsetD8Async"];
    stream_create(stream: *mut Handle, flags: u32) = ["cuStreamCreate", "hipStreamCreateWithFlags"];
    stream_destroy(stream: Handle) = ["cuStreamDestroy_v2", "hipStreamDestroy"];
    stream_sync(stream: Handle) = ["cuStreamSynchronize", "hipStreamSynchronize"];
    stream_wait(stream: Handle, event: Handle, flags: u32) = ["cuStreamWaitEvent", "hipStreamWaitEvent"];
    capture_status(stream: Handle, status: *mut u32) = ["cuStreamIsCapturing", "hipStreamIsCapturing"];
    capture_begin(stream: Handle, mode: u32) = ["cuStreamBeginCapture_v2", "hipStreamBeginCapture"];
    capture_end(stream: Handle, graph: *mut Handle) = ["cuStreamEndCapture", "hipStreamEndCapture"];
    graph_instantiate(program: *mut Handle, graph: Handle, flags: u64) = ["cuGraphInstantiateWithFlags", "hipGraphInstantiateWithFlags"];
    graph_launch(program: Handle, stream: Handle) = ["cuGraphLaunch", "hipGraphLaunch"];
    graph_program_destroy(program: Handle) = ["cuGraphExecDestroy", "hipGraphExecDestroy"];
    graph_destroy(graph: Handle) = ["cuGraphDestroy", "hipGraphDestroy"];
    event_create(event: *mut Handle, flags: u32) = ["cuEventCreate", "hipEventCreateWithFlags"];
    event_record(event: Handle, stream: Handle) = ["cuEventRecord", "hipEventRecord"];
    event_query(event: Handle) = ["cuEventQuery", "hipEventQuery"];
    event_elapsed(milliseconds: *mut f32, start: Handle, end: Handle) = ["cuEventElapsedTime", "hipEventElapsedTime"];
    event_sync(event: Handle) = ["cuEventSynchronize", "hipEventSynchronize"];
    event_destroy(event: Handle) = ["cuEventDestroy_v2", "hipEventDestroy"];
    module_load(module: *mut Handle, image: *const c_void) = ["cuModuleLoadData", "hipModuleLoadData"];
    module_function(function: *mut Handle, module: Handle, name: *const c_char) = ["cuModuleGetFunction", "hipModuleGetFunction"];
    module_global(address: *mut u64, bytes: *mut usize, module: Handle, name: *const c_char) = ["cuModuleGetGlobal_v2", "hipModuleGetGlobal"];
    module_unload(module: Handle) = ["cuModuleUnload", "hipModuleUnload"];
    occupancy(blocks: *mut i32, function: Handle, threads: i32, shared: usize) = ["cuOccupancyMaxActiveBlocksPerMultiprocessor", "hipModuleOccupancyMaxActiveBlocksPerMultiprocessor"];
    launch(function: Handle, x: u32, y: u32, z: u32, tx: u32, ty: u32, tz: u32, shared: u32, stream: Handle, params: *mut Handle, extra: *mut Handle) = ["cuLaunchKernel", "hipModuleLaunchKernel"];
}

/// A vendor's driver, loaded and initialised.
pub(crate) struct Driver {
    pub(crate) vendor: &'static Vendor,
    table: Table,
    /// Never closed: it has threads and handlers of its own, which run on, and ROCm's crashes while it is unloaded.
    library: ManuallyDrop<Library>,
}

impl std::fmt::Debug for Driver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Driver({})", self.vendor.name)
    }
}

impl Driver {
    /// Opens the library, finds every function and initialises. An `Err` says what is missing.
    pub(crate) fn open(vendor: &'static Vendor) -> Result<Arc<Self>, String> {
        // SAFETY: a driver's initialisers are what every program that uses it runs.
        let open = |name: &&str| unsafe { Library::new(*name) };
        let library = vendor.libraries.iter().find_map(|name| open(name).ok());
        let library = ManuallyDrop::new(library.ok_or_else(|| {
            format!("no driver: looked for {}; {}", vendor.libraries.join(", "), vendor.cure)
        })?);
        let table = Table::load(&library, vendor.column)?;
        let driver = Arc::new(Self { vendor, table, library });
        // SAFETY: the flags must be 0.
        unsafe { driver.init(0) }.map_err(|failure| {
            format!("{} gave {}", failure.call, driver.describe(failure.code))
        })?;
        Ok(driver)
    }

    /// A function that only one vendor has.
    ///
    /// # Safety
    /// `T` is the function's type.
    pub(crate) unsafe fn own<T: Copy>(&self, symbol: &str) -> Option<T> {
        // SAFETY: the caller's promise.
        unsafe { self.library.get::<T>(symbol.as_bytes()) }.ok().map(|symbol| *symbol)
    }

    /// `700 (CUDA_ERROR_ILLEGAL_ADDRESS)`; the number alone where the driver has no name for it.
    pub(crate) fn describe(&self, code: u32) -> String {
        let text = match self.vendor.column {
            0 => {
                type Name = unsafe extern "C" fn(u32, *mut *const c_char) -> u32;
                let mut text = std::ptr::null();
                // SAFETY: the function's type in the driver's header; it writes one pointer.
                match unsafe { self.own::<Name>(self.vendor.error_name) } {
                    // SAFETY: as above.
                    Some(name) if unsafe { name(code, &mut text) } == 0 => text,
                    _ => std::ptr::null(),
                }
            }
            _ => {
                type Name = unsafe extern "C" fn(u32) -> *const c_char;
                // SAFETY: the function's type in the runtime's header.
                unsafe { self.own::<Name>(self.vendor.error_name) }
                    // SAFETY: as above; it takes any number.
                    .map_or(std::ptr::null(), |name| unsafe { name(code) })
            }
        };
        if text.is_null() {
            return format!("{code}");
        }
        // SAFETY: the driver's names are static C strings.
        let text = unsafe { CStr::from_ptr(text) }.to_string_lossy();
        format!("{code} ({text})")
    }

    /// The version of the driver's interface, as its own number (13000 for CUDA 13.0).
    pub(crate) fn version(&self) -> Result<i32, Failure> {
        let mut version = 0;
        // SAFETY: one i32 is written.
        unsafe { self.driver_version(&mut version) }?;
        Ok(version)
    }

    /// How many devices there are. "None" is an error of some drivers and a number of others.
    pub(crate) fn count(&self) -> Result<usize, Failure> {
        let mut count = 0;
        // SAFETY: one i32 is written.
        unsafe { self.device_count(&mut count) }?;
        Ok(usize::try_from(count).unwrap_or(0))
    }

    /// What a device can do at best. `None` where the driver does not tell its clocks: nothing but benches needs them.
    pub(crate) fn peak(&self, arch: &str, units: usize, device: i32) -> Option<Peak> {
        let [clock, memory_clock, bus] =
            self.vendor.peak_attributes.map(|number| self.attribute(number, device).ok());
        Some(Peak::new(arch, units, clock?, memory_clock?, bus?))
    }

    /// Sets one property of a function of a loaded module, by a call that only one vendor has. A driver without it has
    /// no such property to set either: what needs it fails by itself.
    pub(crate) fn set_property(
        &self,
        call: &'static str,
        function: Handle,
        property: u32,
        value: i32,
    ) -> Result<(), Failure> {
        type Set = unsafe extern "C" fn(Handle, u32, i32) -> u32;
        // SAFETY: the function's type in the driver's header.
        match unsafe { self.own::<Set>(call) } {
            // SAFETY: as above; a living function.
            Some(set) => match unsafe { set(function, property, value) } {
                0 => Ok(()),
                code => Err(Failure { call, code }),
            },
            None => Ok(()),
        }
    }

    /// One attribute of a device.
    pub(crate) fn attribute(&self, attribute: u32, device: i32) -> Result<i32, Failure> {
        let mut value = 0;
        // SAFETY: one i32 is written.
        unsafe { self.device_attribute(&mut value, attribute, device) }?;
        Ok(value)
    }

    /// A device's name.
    pub(crate) fn name(&self, device: i32) -> Result<String, Failure> {
        let mut name = [0 as c_char; 256];
        // SAFETY: at most the given length is written, with a zero at the end.
        unsafe { self.device_name(name.as_mut_ptr(), 255, device) }?;
        // SAFETY: zeroed above, one byte longer than what may be written.
        Ok(unsafe { CStr::from_ptr(name.as_ptr()) }.to_string_lossy().into_owned())
    }
}

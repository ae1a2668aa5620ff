//! Contexts.

use std::ffi::{c_int, c_uint, c_void};

use halfstep_vgpu::driver::context::{current, pop_current, push_current, set_current};
use halfstep_vgpu::driver::error::{Error, Result};
use halfstep_vgpu::driver::schedule::wait;

use crate::call::{driver, export, lock, put, put_if};

/// A context that exists, from a handle.
fn known(context: u64) -> Result<u64> {
    lock().contexts.get(context).map_err(|_| Error::InvalidContext)?;
    Ok(context)
}

fn create(context: *mut u64, flags: c_uint, device: c_int) -> Result {
    let mut d = lock();
    let device = d.device(device)?;
    put(context, d.create_context(device, flags))
}

export! {
    #[doc = "Holds a device's own context."]
    fn cuDevicePrimaryCtxRetain(context: *mut u64, device: c_int) {
        let mut d = lock();
        let device = d.device(device)?;
        put(context, d.retain_primary(device))
    }

    #[doc = "Lets go of it."]
    fn cuDevicePrimaryCtxRelease_v2(device: c_int) {
        let mut d = lock();
        let device = d.device(device)?;
        d.release_primary(device)
    }

    #[doc = "Ends it, whoever holds it."]
    fn cuDevicePrimaryCtxReset_v2(device: c_int) {
        let mut d = lock();
        let device = d.device(device)?;
        d.reset_primary(device);
        Ok(())
    }

    #[doc = "Its flags."]
    fn cuDevicePrimaryCtxSetFlags_v2(device: c_int, flags: c_uint) {
        let mut d = lock();
        let device = d.device(device)?;
        d.primaries[device as usize].flags = flags;
        Ok(())
    }

    #[doc = "Its flags, and whether it is there."]
    fn cuDevicePrimaryCtxGetState(device: c_int, flags: *mut c_uint, active: *mut c_int) {
        let d = lock();
        let primary = d.primaries[d.device(device)? as usize];
        put_if(flags, primary.flags);
        put(active, c_int::from(primary.context.is_some()))
    }

    #[doc = "A context of one's own."]
    fn cuCtxCreate_v2(context: *mut u64, flags: c_uint, device: c_int) {
        create(context, flags, device)
    }

    #[doc = "The same; affinities are not looked at."]
    fn cuCtxCreate_v3(
        context: *mut u64,
        params: *mut c_void,
        count: c_int,
        flags: c_uint,
        device: c_int,
    ) {
        create(context, flags, device)
    }

    #[doc = "The same; parameters are not looked at."]
    fn cuCtxCreate_v4(context: *mut u64, params: *mut c_void, flags: c_uint, device: c_int) {
        create(context, flags, device)
    }

    #[doc = "Ends a context of one's own."]
    fn cuCtxDestroy_v2(context: u64) {
        lock().destroy_context(context)
    }

    #[doc = "The thread's context."]
    fn cuCtxGetCurrent(context: *mut u64) {
        put(context, current().unwrap_or(0))
    }

    #[doc = "Another context for the thread, in place of the one it has."]
    fn cuCtxSetCurrent(context: u64) {
        let context = if context == 0 { None } else { Some(known(context)?) };
        set_current(context);
        Ok(())
    }

    #[doc = "Another context for the thread, for a while."]
    fn cuCtxPushCurrent_v2(context: u64) {
        push_current(known(context)?);
        Ok(())
    }

    #[doc = "The one before again."]
    fn cuCtxPopCurrent_v2(context: *mut u64) {
        put_if(context, pop_current().ok_or(Error::InvalidContext)?);
        Ok(())
    }

    #[doc = "The device of the thread's context."]
    fn cuCtxGetDevice(device: *mut c_int) {
        let d = lock();
        put(device, d.device_of(d.here()?) as c_int)
    }

    #[doc = "The context's flags."]
    fn cuCtxGetFlags(flags: *mut c_uint) {
        let d = lock();
        put(flags, d.contexts.get(d.here()?)?.flags)
    }

    #[doc = "The context's flags."]
    fn cuCtxSetFlags(flags: c_uint) {
        let mut d = lock();
        let here = d.here()?;
        d.contexts.get_mut(here)?.flags = flags;
        Ok(())
    }

    #[doc = "Waits for all work of the context."]
    fn cuCtxSynchronize() {
        let (context, mark) = lock().all_to_wait_for()?;
        wait(driver(), context, &mark)
    }

    #[doc = "The version that a context was made with."]
    fn cuCtxGetApiVersion(context: u64, version: *mut c_uint) {
        put(version, 3020)
    }

    #[doc = "The least and the greatest priority of streams."]
    fn cuCtxGetStreamPriorityRange(least: *mut c_int, greatest: *mut c_int) {
        lock().here()?;
        put_if(least, 0);
        put_if(greatest, -5);
        Ok(())
    }

    #[doc = "Lets the current context reach another one's memory."]
    fn cuCtxEnablePeerAccess(peer: u64, flags: c_uint) {
        let peer = known(peer)?;
        let mut d = lock();
        let device = d.device_of(peer);
        d.enable_peer(device)
    }

    #[doc = "And no longer."]
    fn cuCtxDisablePeerAccess(peer: u64) {
        let peer = known(peer)?;
        let mut d = lock();
        let device = d.device_of(peer);
        d.disable_peer(device)
    }

    #[doc = "A limit: the stack's and others, which nothing comes up to here."]
    fn cuCtxGetLimit(value: *mut usize, limit: c_uint) {
        lock().here()?;
        put(value, if limit == 0 { 1024 } else { 0 })
    }

    #[doc = "A limit, which is not enforced."]
    fn cuCtxSetLimit(limit: c_uint, value: usize) {
        lock().here().map(|_| ())
    }

    #[doc = "How cache and shared memory are divided: as it comes."]
    fn cuCtxGetCacheConfig(config: *mut c_uint) {
        lock().here()?;
        put(config, 0)
    }

    #[doc = "A wish, which is heard and no more."]
    fn cuCtxSetCacheConfig(config: c_uint) {
        lock().here().map(|_| ())
    }
}

//! Modules and functions, and launching.

use std::sync::Arc;

use super::Driver;
use super::error::{Error, Result};
use super::module::{Code, Facts, Kernel};
use super::work::{Launch, Work};
use crate::launch::Grid;

/// A module of a context.
#[derive(Debug)]
pub struct Module {
    /// Its context.
    pub context: u64,
    /// What is in it.
    pub code: Code,
    /// Functions that were asked for, by name.
    functions: Vec<(String, u64)>,
}

/// A kernel that was asked for.
#[derive(Debug)]
pub struct Function {
    /// Its module.
    pub module: u64,
    /// What is known of it.
    pub facts: Facts,
    /// Bytes of shared memory that a launch may ask for.
    pub max_dynamic: u32,
    name: String,
    /// What runs, decoded when that is wanted.
    kernel: Option<Arc<Kernel>>,
}

impl Driver {
    /// Loads an image into the current context. What is wrong with it also comes in words.
    pub fn load(&mut self, image: &[u8]) -> std::result::Result<u64, (Error, String)> {
        let context = self.here().map_err(|error| (error, error.to_string()))?;
        self.memory.home = self.device_of(context);
        let code = Code::load(self.model.vendor, image, &mut self.memory)?;
        Ok(self.modules.add(Module { context, code, functions: Vec::new() }))
    }

    /// Ends a module; its functions are gone.
    pub fn unload(&mut self, module: u64) -> Result {
        let module = self.modules.remove(module)?;
        for (_, function) in module.functions {
            let _ = self.functions.remove(function);
        }
        for base in module.code.variables() {
            let _ = self.release(base);
        }
        Ok(())
    }

    /// A kernel of a module. It is decoded when it is launched: of the kernels that a program asks for,
    /// it launches few.
    pub fn function(&mut self, module: u64, name: &str) -> Result<u64> {
        let found = self.modules.get(module)?;
        self.sound(found.context)?;
        if let Some((_, function)) = found.functions.iter().find(|(known, _)| known == name) {
            return Ok(*function);
        }
        let facts = match found.code.facts(name) {
            Ok(facts) => facts,
            // To ask for what is not there is no fault; not to be able to read it is.
            Err((Error::NotFound, _)) => return Err(Error::NotFound),
            Err((error, what)) => {
                self.journal.complain(what, None);
                return Err(error);
            }
        };
        let max_dynamic = self.model.block_shared.saturating_sub(facts.shared);
        let function = Function { module, facts, max_dynamic, name: name.into(), kernel: None };
        let function = self.functions.add(function);
        self.modules.get_mut(module)?.functions.push((name.into(), function));
        Ok(function)
    }

    /// A function's code, decoded. An instruction that is not known is an error here, with its name in
    /// the journal.
    pub fn kernel(&mut self, function: u64) -> Result<Arc<Kernel>> {
        let found = self.functions.get(function)?;
        if let Some(kernel) = &found.kernel {
            return Ok(kernel.clone());
        }
        let kernel = match self.modules.get(found.module)?.code.kernel(&found.name) {
            Ok(kernel) => Arc::new(kernel),
            Err((error, what)) => {
                self.journal.complain(what, None);
                return Err(error);
            }
        };
        self.functions.get_mut(function)?.kernel = Some(kernel.clone());
        Ok(kernel)
    }

    /// A variable of a module: address and bytes.
    pub fn variable(&self, module: u64, name: &str) -> Result<(u64, u64)> {
        self.modules.get(module)?.code.variable(name).ok_or(Error::NotFound)
    }

    /// Gives a stream a launch.
    pub fn launch_kernel(
        &mut self,
        function: u64,
        grid: Grid,
        params: Vec<u8>,
        stream: u64,
    ) -> Result {
        let found = self.functions.get(function)?;
        let threads: u64 = grid.threads.iter().map(|n| u64::from(*n)).product();
        let [_, by, bz] = grid.blocks;
        let [tx, ty, tz] = grid.threads;
        let shape = !grid.blocks.contains(&0)
            && grid.blocks[0] <= i32::MAX as u32
            && by <= 65535
            && bz <= 65535
            && threads > 0
            && tx <= 1024
            && ty <= 1024
            && tz <= if self.model.wave == 32 { 64 } else { 1024 }
            && threads <= 1024;
        if !shape || grid.shared > found.max_dynamic {
            return Err(Error::InvalidValue);
        }
        if threads > found.facts.max_threads.into() {
            return Err(Error::InvalidValue);
        }
        if self.modules.get(found.module)?.context != self.streams.get(stream)?.context {
            return Err(Error::InvalidHandle);
        }
        let kernel = self.kernel(function)?;
        self.submit(stream, Work::Launch(Arc::new(Launch { kernel, grid, params })))
    }

    /// Lets launches of a function ask for more shared memory.
    pub fn set_max_dynamic(&mut self, function: u64, bytes: u32) -> Result {
        let most = self.model.block_shared_optin;
        let found = self.functions.get_mut(function)?;
        if bytes > most.saturating_sub(found.facts.shared) {
            return Err(Error::InvalidValue);
        }
        found.max_dynamic = bytes;
        Ok(())
    }

    /// Blocks of a function that a unit holds at once.
    pub fn occupancy(&self, function: u64, threads: u32, shared: u64) -> Result<u32> {
        let declared = self.functions.get(function)?.facts.shared;
        if threads == 0 || threads > 1024 {
            return Err(Error::InvalidValue);
        }
        let registers = self.registers(function)?;
        let m = &self.model;
        let waves = threads.div_ceil(m.wave);
        let by_threads = m.unit_threads / (waves * m.wave);
        // Registers are given to waves in steps of 256.
        let registers = (registers * m.wave).next_multiple_of(256) * waves;
        let by_registers = m.unit_registers.checked_div(registers).unwrap_or(u32::MAX);
        let bytes = u64::from(declared) + shared;
        if bytes > m.block_shared_optin.into() {
            return Ok(0);
        }
        let bytes = bytes + u64::from(m.block_shared_reserved);
        let by_shared = u64::from(m.unit_shared).checked_div(bytes).unwrap_or(u64::MAX);
        let by_shared = by_shared.min(u32::MAX.into()) as u32;
        Ok(by_threads.min(by_registers).min(by_shared).min(m.unit_blocks))
    }

    /// Registers of a thread. PTX does not say how many there will be; 64 is what most kernels are
    /// kept to.
    pub fn registers(&self, function: u64) -> Result<u32> {
        Ok(self.functions.get(function)?.facts.registers.unwrap_or(64))
    }
}

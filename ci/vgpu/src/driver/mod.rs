//! What stands where the drivers stand: devices, contexts, streams, events, memory, modules and
//! graphs, the same for both vendors. The fronts (`ci/vgpu/cuda`, `ci/vgpu/hip`) give it their
//! functions' names.
//!
//! Work waits in [`lane`]s until the host waits for something, and is then done in an order that is
//! drawn from a seed and that respects only the order within streams, events, and the default
//! stream: so a dependency that was forgotten gives a wrong answer. It is also found as such:
//! [`order`] knows which operations nothing orders, and compares what they touched.

pub mod allocate;
pub mod capture;
pub mod code;
pub mod context;
pub mod copy;
pub mod door;
pub mod error;
pub mod event;
pub mod front;
pub mod graph;
pub mod journal;
pub mod lane;
pub mod model;
pub mod module;
pub mod nccl;
pub mod order;
pub mod random;
pub mod schedule;
pub mod settings;
pub mod stream;
pub mod table;
pub mod work;

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, OnceLock};

use capture::{Capture, Mode};
use journal::Journal;
use lane::Lanes;
use model::Model;
use order::History;
use random::Random;
use settings::Settings;
use table::Table;

use crate::memory::GlobalMemory;

/// Everything that a process's driver keeps.
#[derive(Debug)]
pub struct Driver {
    /// What the environment says.
    pub settings: Settings,
    /// What the devices are like.
    pub model: &'static Model,
    /// All memory that devices reach.
    pub memory: GlobalMemory,
    /// What happened.
    pub journal: Journal,
    /// What orders of execution are drawn from.
    pub random: Random,
    /// Whether somebody initialised the driver.
    pub initialized: bool,
    /// Contexts.
    pub contexts: Table<context::Context>,
    /// Each device's primary context.
    pub primaries: Vec<context::Primary>,
    /// Streams.
    pub streams: Table<stream::Stream>,
    /// Events.
    pub events: Table<event::Event>,
    /// Modules.
    pub modules: Table<code::Module>,
    /// Functions.
    pub functions: Table<code::Function>,
    /// Graphs.
    pub graphs: Table<graph::Graph>,
    /// Graphs that can be launched.
    pub execs: Table<graph::Exec>,
    /// Pools; the default ones come first.
    pub pools: Table<allocate::Pool>,
    /// Communicators.
    pub cliques: nccl::Cliques,
    /// Queues.
    lanes: Lanes,
    captures: Table<Capture>,
    history: History,
    /// Nanoseconds of all devices, as far as they were busy.
    clock: u64,
    /// Bytes in use of each device.
    used: Vec<u64>,
    allocated: u64,
    /// The context of each allocation.
    owners: BTreeMap<u64, u64>,
    /// Allocations that a stream will free.
    freeing: BTreeSet<u64>,
    pinned: BTreeMap<u64, allocate::Pinned>,
}

impl Driver {
    /// Devices of a model, as the settings say.
    pub fn new(model: &'static Model, settings: Settings) -> Result<Self, String> {
        let devices = settings.devices;
        let mut pools = Table::new(0x19);
        for device in 0..devices {
            pools.add(allocate::Pool { device, default: true, threshold: 0 });
        }
        Ok(Self {
            journal: Journal::new(&settings)?,
            random: Random::new(settings.seed),
            model,
            memory: GlobalMemory::new(),
            initialized: false,
            contexts: Table::new(0x11),
            primaries: vec![context::Primary::default(); devices as usize],
            streams: Table::new(0x12),
            events: Table::new(0x13),
            modules: Table::new(0x14),
            functions: Table::new(0x15),
            graphs: Table::new(0x16),
            execs: Table::new(0x17),
            pools,
            cliques: nccl::Cliques::default(),
            lanes: Lanes::default(),
            captures: Table::new(0x18),
            history: History::default(),
            clock: 0,
            used: vec![0; devices as usize],
            allocated: 0,
            owners: BTreeMap::new(),
            freeing: BTreeSet::new(),
            pinned: BTreeMap::new(),
            settings,
        })
    }

    /// All that a stream was given, for the host to wait for; with the stream's context.
    pub fn to_wait_for(&mut self, stream: u64) -> error::Result<(u64, lane::Mark)> {
        self.forbid_captured(stream)?;
        self.forbid_unsafe()?;
        let context = self.streams.get(stream)?.context;
        let lane = self.streams.get(stream)?.lane;
        self.sound(context)?;
        // Waiting for the default stream is waiting for what it would wait for.
        let mark =
            if self.is_legacy(stream)? { self.stream_mark(stream)? } else { self.lanes.mark(lane) };
        Ok((context, mark))
    }

    /// All that the current context was given, likewise.
    pub fn all_to_wait_for(&mut self) -> error::Result<(u64, lane::Mark)> {
        let context = self.here()?;
        self.forbid_unsafe()?;
        Ok((context, self.context_mark(context)))
    }
}

static DRIVER: OnceLock<Mutex<Driver>> = OnceLock::new();

/// The process's driver, with devices of `model`. Settings that cannot be read end the process.
pub fn shared(model: &'static Model) -> &'static Mutex<Driver> {
    DRIVER.get_or_init(|| {
        let driver = Settings::from_env().and_then(|settings| Driver::new(model, settings));
        let driver = driver.unwrap_or_else(|what| {
            eprintln!("vgpu: {what}");
            std::process::exit(2);
        });
        door::at_exit();
        Mutex::new(driver)
    })
}

/// The process's driver, if it was used.
pub fn started() -> Option<&'static Mutex<Driver>> {
    DRIVER.get()
}

thread_local! {
    static CAPTURE_MODE: Cell<Mode> = const { Cell::new(Mode::Global) };
}

/// How careful the calling thread is of others' captures.
pub fn capture_mode() -> Mode {
    CAPTURE_MODE.get()
}

/// Changes that; the old one comes back.
pub fn exchange_capture_mode(mode: Mode) -> Mode {
    CAPTURE_MODE.replace(mode)
}

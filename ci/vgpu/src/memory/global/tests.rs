use super::*;
use crate::memory::agent;

fn kind<T>(result: Result<T, Fault>) -> Kind {
    match result {
        Ok(_) => panic!("no fault"),
        Err(fault) => fault.kind,
    }
}

#[test]
fn bounds_and_frees_are_checked_by_allocation() {
    let mut memory = GlobalMemory::new();
    let a = memory.allocate(6, "a");
    let b = memory.allocate_with(vec![1; 8], "b");
    assert_eq!(memory.load(b, 8, 0).unwrap().word, Word::known(0x0101_0101_0101_0101));
    assert_eq!(kind(memory.load(a + 4, 4, 0)), Kind::ReadOutOfBounds);
    assert_eq!(kind(memory.store(a + 8, 4, Word::known(0), 0)), Kind::WriteOutOfBounds);
    assert_eq!(kind(memory.load(16, 4, 0)), Kind::ReadOutOfBounds);
    memory.free(a).unwrap();
    assert_eq!(kind(memory.load(a, 4, 0)), Kind::UseAfterFree);
    assert_eq!(kind(memory.free(a)), Kind::UseAfterFree);
    assert_ne!(memory.allocate(6, "c"), a);
    memory.make_constant(b);
    assert_eq!(kind(memory.store(b, 4, Word::known(0), 0)), Kind::WriteToConstant);
    assert!(GlobalMemory::aligned(b + 2, 4).is_err());
}

#[test]
fn blocks_of_one_launch_race_and_launches_do_not() {
    let mut memory = GlobalMemory::new();
    let a = memory.allocate_with(vec![0; 64], "a");
    assert_eq!(memory.store(a, 4, Word::known(1), agent(0, 0)), Ok(None));
    assert_eq!(memory.store(a + 4, 2, Word::known(1), agent(1, 0)), Ok(None));
    assert_eq!(memory.load(a, 4, agent(1, 0)).unwrap().fault.unwrap().kind, Kind::GlobalRace);
    memory.begin_launch();
    assert_eq!(memory.load(a, 4, agent(1, 0)).unwrap().fault, None);
    for block in 0..3 {
        let sum = memory.atomic(a + 8, 4, agent(block, 0), |w| Word::known(w.bits + 1)).unwrap();
        assert_eq!(sum.fault, None);
    }
    assert_eq!(memory.load(a + 8, 4, 9).unwrap().word.bits, 3);
}

#[test]
fn other_homes_are_seen_where_allowed() {
    let mut memory = GlobalMemory::new();
    memory.home = 1;
    let a = memory.allocate_with(vec![0; 8], "a");
    memory.visible = 0b01;
    memory.begin_launch();
    assert_eq!(kind(memory.load(a, 4, 0)), Kind::ReadOutOfBounds);
    memory.visible = 0b11;
    assert!(memory.load(a, 4, 0).is_ok());
}

#[test]
fn the_hosts_memory_is_reached_at_its_own_address() {
    let mut memory = GlobalMemory::new();
    let a = memory.allocate_with(vec![3; 8], "a");
    let mut host = vec![1_u8; 8];
    // SAFETY: `host` outlives its mapping, and is not used while a method runs.
    let base = unsafe { memory.map_host(host.as_mut_ptr(), 8, "host") }.unwrap();
    memory.store(base + 4, 4, Word::known(0x0505_0505), 0).unwrap();
    assert_eq!(host, [1, 1, 1, 1, 5, 5, 5, 5]);
    memory.copy(base, a, 2).unwrap();
    assert_eq!(host[..3], [3, 3, 1]);
    memory.free(base).unwrap();
    assert_eq!(kind(memory.load(base, 4, 0)), Kind::UseAfterFree);
}

#[test]
fn a_launchs_footprint_is_what_it_touched() {
    let mut memory = GlobalMemory::new();
    let a = memory.allocate(1 << 40, "a");
    memory.note_footprint = true;
    memory.begin_launch();
    memory.store(a + (1 << 39), 8, Word::known(1), 0).unwrap();
    memory.load(a, 4, 0).unwrap();
    let footprint = memory.take_footprint();
    assert_eq!((footprint.reads.bytes(), footprint.writes.bytes()), (4, 8));
    assert_eq!(memory.take_footprint(), Footprint::default());
}

#[test]
fn copies_keep_what_is_undefined() {
    let mut memory = GlobalMemory::new();
    let a = memory.allocate(8, "a");
    let b = memory.allocate_with(vec![0; 8], "b");
    memory.write(a, &[7; 3]).unwrap();
    memory.copy(b, a, 8).unwrap();
    assert_eq!(memory.first_undefined(b, 8), Ok(Some(b + 3)));
    assert_eq!(memory.read(b, 3).unwrap(), [7; 3]);
}

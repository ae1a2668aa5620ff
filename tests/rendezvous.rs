//! Who a process is and where it meets the others, from tables of what launchers say.
#![allow(missing_docs)]

use halfstep::Error;
use halfstep::reduce::{Given, Rendezvous, hosts};

/// Variables, `A=1 B=2`.
fn find(given: &Given, variables: &str) -> Result<Rendezvous, Error> {
    let variable = |name: &str| {
        let pairs = variables.split(' ').filter_map(|pair| pair.split_once('='));
        pairs.filter(|(known, _)| *known == name).map(|(_, value)| value.to_string()).next()
    };
    Rendezvous::find(given, &variable)
}

#[test]
fn each_launcher_is_understood() {
    const SLURM: &str = "SLURM_PROCID=5 SLURM_STEP_NUM_TASKS=7 SLURM_LOCALID=1 SLURM_NODEID=1 \
        SLURM_STEP_TASKS_PER_NODE=4,3 SLURM_STEP_NODELIST=nid[007-008] SLURM_JOB_ID=1234567";
    for (variables, expected) in [
        ("", (0, 1, 0, 1, "127.0.0.1:29500")),
        (
            "RANK=3 WORLD_SIZE=8 LOCAL_RANK=1 LOCAL_WORLD_SIZE=2 MASTER_ADDR=a MASTER_PORT=77",
            (3, 8, 1, 2, "a:77"),
        ),
        // torchrun listens at its port itself, for PyTorch's store.
        (
            "RANK=3 WORLD_SIZE=8 LOCAL_RANK=1 LOCAL_WORLD_SIZE=2 MASTER_ADDR=a MASTER_PORT=77 \
             TORCHELASTIC_USE_AGENT_STORE=True",
            (3, 8, 1, 2, "a:78"),
        ),
        ("MASTER_PORT=77 TORCHELASTIC_USE_AGENT_STORE=False", (0, 1, 0, 1, "127.0.0.1:77")),
        ("MASTER_PORT=65535 TORCHELASTIC_USE_AGENT_STORE=True", (0, 1, 0, 1, "127.0.0.1:65534")),
        ("RANK=1 WORLD_SIZE=2", (1, 2, 1, 2, "127.0.0.1:29500")),
        ("RANK=0 WORLD_SIZE=1 MASTER_ADDR=::1", (0, 1, 0, 1, "[::1]:29500")),
        (
            "OMPI_COMM_WORLD_RANK=2 OMPI_COMM_WORLD_SIZE=4 OMPI_COMM_WORLD_LOCAL_RANK=2 \
             OMPI_COMM_WORLD_LOCAL_SIZE=4",
            (2, 4, 2, 4, "127.0.0.1:29500"),
        ),
        // Two of its jobs on one host do not meet.
        (
            "OMPI_COMM_WORLD_RANK=0 OMPI_COMM_WORLD_SIZE=1 PMIX_NAMESPACE=1638334465",
            (0, 1, 0, 1, "127.0.0.1:27558"),
        ),
        (
            "OMPI_COMM_WORLD_RANK=0 OMPI_COMM_WORLD_SIZE=1 PMIX_NAMESPACE=prterun-node7-812@1",
            (0, 1, 0, 1, "127.0.0.1:24744"),
        ),
        (
            "OMPI_COMM_WORLD_RANK=0 OMPI_COMM_WORLD_SIZE=1 PMIX_NAMESPACE=a MASTER_PORT=7",
            (0, 1, 0, 1, "127.0.0.1:7"),
        ),
        ("PMIX_NAMESPACE=1638334465", (0, 1, 0, 1, "127.0.0.1:29500")),
        (
            "PMI_RANK=2 PMI_SIZE=4 MPI_LOCALRANKID=0 MPI_LOCALNRANKS=2 MASTER_ADDR=login1",
            (2, 4, 0, 2, "login1:29500"),
        ),
        (SLURM, (5, 7, 1, 3, "nid007:24567")),
        // Of the job, where nothing is said of the step.
        (&SLURM.replace("STEP_NODELIST", "JOB_NODELIST"), (5, 7, 1, 3, "nid007:24567")),
        (&format!("{SLURM} SLURM_STEP_ID=3"), (5, 7, 1, 3, "nid007:24870")),
        (&format!("{SLURM} MASTER_ADDR=b MASTER_PORT=1"), (5, 7, 1, 3, "b:1")),
        // A launcher inside a step: its numbers, together; SLURM's hosts.
        (
            &format!("RANK=1 WORLD_SIZE=4 LOCAL_RANK=1 LOCAL_WORLD_SIZE=2 {SLURM}"),
            (1, 4, 1, 2, "nid007:24567"),
        ),
        // A batch script is one process.
        (
            "SLURM_PROCID=0 SLURM_NTASKS=8 SLURM_JOB_NODELIST=a[1-2] SLURM_LOCALID=0",
            (0, 1, 0, 1, "127.0.0.1:29500"),
        ),
        // What is empty is not there.
        ("RANK= WORLD_SIZE= MASTER_ADDR= LOCAL_RANK=", (0, 1, 0, 1, "127.0.0.1:29500")),
        // How many there are, without which, is no word on this process.
        ("WORLD_SIZE=4", (0, 1, 0, 1, "127.0.0.1:29500")),
    ] {
        let found =
            find(&Given::default(), variables).unwrap_or_else(|e| panic!("{variables}: {e}"));
        let found = (found.rank, found.size, found.local_rank, found.local_size, found.address());
        let (rank, size, local_rank, local_size, address) = expected;
        assert_eq!(found, (rank, size, local_rank, local_size, address.to_string()), "{variables}");
    }
}

#[test]
fn arguments_come_first() {
    let given = Given {
        rank: Some(1),
        size: Some(2),
        local_rank: Some(0),
        local_size: Some(1),
        host: Some("mine".into()),
        port: Some(9),
    };
    let found = find(&given, "RANK=3 WORLD_SIZE=8 LOCAL_RANK=1 LOCAL_WORLD_SIZE=2 MASTER_PORT=77");
    let found = found.unwrap();
    assert_eq!((found.rank, found.size, found.local_rank, found.local_size), (1, 2, 0, 1));
    assert_eq!(found.address(), "mine:9");
    // The rest is found.
    let given = Given { port: Some(9), ..Given::default() };
    assert_eq!(find(&given, "RANK=1 WORLD_SIZE=2").unwrap().address(), "127.0.0.1:9");
}

#[test]
fn what_is_wrong_or_missing_is_named() {
    for (variables, name) in [
        ("RANK=8 WORLD_SIZE=8", "RANK"),
        ("RANK=x WORLD_SIZE=8", "RANK"),
        ("RANK=-1 WORLD_SIZE=8", "RANK"),
        ("RANK=0 WORLD_SIZE=0", "RANK"),
        ("RANK=0", "WORLD_SIZE"),
        ("RANK=0 WORLD_SIZE=2 LOCAL_RANK=0", "LOCAL_WORLD_SIZE"),
        ("RANK=0 WORLD_SIZE=2 LOCAL_RANK=2 LOCAL_WORLD_SIZE=2", "LOCAL_RANK"),
        ("RANK=0 WORLD_SIZE=2 LOCAL_RANK=2 LOCAL_WORLD_SIZE=4", "local size"),
        // Two processes would take one device.
        ("RANK=0 WORLD_SIZE=2 MASTER_ADDR=a", "LOCAL_RANK, LOCAL_WORLD_SIZE"),
        ("RANK=0 WORLD_SIZE=4 LOCAL_RANK=0 LOCAL_WORLD_SIZE=2", "MASTER_ADDR"),
        ("MASTER_PORT=0", "MASTER_PORT"),
        ("MASTER_PORT=65536", "MASTER_PORT"),
        ("SLURM_PROCID=0 SLURM_STEP_NUM_TASKS=2 SLURM_LOCALID=0", "SLURM_STEP_TASKS_PER_NODE"),
        (
            "SLURM_PROCID=0 SLURM_STEP_NUM_TASKS=2 SLURM_LOCALID=0 SLURM_STEP_TASKS_PER_NODE=1(x2 SLURM_NODEID=0",
            "SLURM_STEP_TASKS_PER_NODE",
        ),
        (
            "SLURM_PROCID=0 SLURM_STEP_NUM_TASKS=2 SLURM_LOCALID=0 SLURM_STEP_TASKS_PER_NODE=1(x2) SLURM_NODEID=2",
            "SLURM_STEP_TASKS_PER_NODE",
        ),
        (
            "SLURM_PROCID=0 SLURM_STEP_NUM_TASKS=1 SLURM_LOCALID=0 SLURM_STEP_TASKS_PER_NODE=1 SLURM_STEP_NODELIST=a[1",
            "list",
        ),
    ] {
        let error = find(&Given::default(), variables).unwrap_err();
        assert!(matches!(error, Error::Range { .. } | Error::State { .. }), "{variables}: {error}");
        assert!(error.to_string().contains(name), "{variables}: {error}, not {name}");
    }
    for given in [
        Given { rank: Some(0), ..Given::default() },
        Given { size: Some(1), ..Given::default() },
        Given { port: Some(0), ..Given::default() },
        Given { rank: Some(2), size: Some(2), ..Given::default() },
    ] {
        find(&given, "").unwrap_err();
    }
}

#[test]
fn a_device_for_each_process_of_a_host() {
    const SECOND: &str = "RANK=1 WORLD_SIZE=2";
    let found = |more: &str| find(&Given::default(), &format!("{SECOND} {more}")).unwrap();
    assert_eq!(found("").device_index(4).unwrap(), 1);
    // The only one that is there is another's, unless it is the only one that this process sees.
    let error = found("").device_index(1).unwrap_err();
    assert!(matches!(&error, Error::Range { arg, .. } if arg == "devices"), "{error}");
    for name in ["CUDA_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES"] {
        assert_eq!(found(&format!("{name}=3")).device_index(1).unwrap(), 0);
        assert_eq!(found(&format!("{name}=2,3")).device_index(2).unwrap(), 1);
    }
    found("CUDA_VISIBLE_DEVICES=").device_index(0).unwrap_err();
}

#[test]
fn lists_of_hosts_are_written_out() {
    for (list, expected) in [
        ("a", "a"),
        ("a,b-1,c.d", "a b-1 c.d"),
        ("nid[001-003,7],login1", "nid001 nid002 nid003 nid7 login1"),
        ("n[9-11]", "n9 n10 n11"),
        ("n[08-10]", "n08 n09 n10"),
        ("n[5]", "n5"),
        ("r[0-1]n[2,4]x", "r0n2x r0n4x r1n2x r1n4x"),
        ("[1-2]", "1 2"),
        (
            "n[18446744073709551614-18446744073709551615]",
            "n18446744073709551614 n18446744073709551615",
        ),
    ] {
        let expected: Vec<&str> = expected.split(' ').collect();
        assert_eq!(hosts(list).unwrap(), expected, "{list}");
    }
    for list in [
        "",
        ",",
        "a,",
        "n[",
        "n]",
        "n[1",
        "n1]",
        "n[[1]]",
        "n[]",
        "n[a]",
        "n[1-]",
        "n[-1]",
        "n[3-1]",
        "n[1,]",
        "n[1-2",
        "n 1",
        "n[0-99999999999]",
        "n[0-2000][0-2000]",
        "a[1-2],b[",
        "n[1--2]",
        "é",
        "n[18446744073709551616]",
    ] {
        let error = hosts(list).unwrap_err();
        assert!(matches!(&error, Error::Range { arg, .. } if arg == "list"), "{list}: {error}");
    }
}

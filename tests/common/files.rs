//! State files in folders of their own.

use std::fs;
use std::path::{Path, PathBuf};

use halfstep::optim::*;
use halfstep::{Device, Error, Stream, bf16};

/// A folder that goes when the test ends.
pub struct Folder(pub PathBuf);

impl Folder {
    pub fn new(name: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("halfstep-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder).unwrap();
        Self(folder)
    }

    pub fn file(&self) -> PathBuf {
        self.0.join("state.safetensors")
    }

    pub fn names(&self) -> Vec<String> {
        let names = fs::read_dir(&self.0).unwrap();
        names.map(|name| name.unwrap().file_name().into_string().unwrap()).collect()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A small optimizer, its file of about 2 KiB, and what it holds.
pub fn small(folder: &Folder) -> (Stream, Optimizer<f32, bf16>, Vec<u8>, Vec<f32>) {
    let device = Device::cpu();
    let stream = device.stream().unwrap();
    let group = Group::new(AdamW::default()).tensors([Tensor::new("a", 90), Tensor::new("b", 40)]);
    let mut optimizer = Optimizer::<f32, bf16>::new(&device, &[group], Config::default()).unwrap();
    let (mut a, mut b) = (vec![1.0f32; 90], vec![2.0f32; 40]);
    let (g, h) = (vec![bf16::ONE; 90], vec![bf16::NEG_ONE; 40]);
    optimizer.run(&stream, &mut [&mut a, &mut b], &[Some(&g), Some(&h)]).unwrap();
    optimizer.save(&stream, folder.file()).unwrap();
    let bytes = fs::read(folder.file()).unwrap();
    let moments = optimizer.moment(&stream, 0, 0).unwrap();
    (stream, optimizer, bytes, moments)
}

/// Every attempt fails, typed, and changes nothing.
pub fn refused(
    optimizer: &mut Optimizer<f32, bf16>,
    stream: &Stream,
    path: &Path,
    bytes: &[u8],
    what: &str,
) -> Error {
    fs::write(path, bytes).unwrap();
    let before = (optimizer.moment(stream, 0, 0).unwrap(), optimizer.counters(stream, 1).unwrap());
    let error = optimizer.load(stream, path).expect_err(what);
    let (Error::Checkpoint { path: named, .. } | Error::Io { path: named, .. }) = &error else {
        panic!("{what}: {error}");
    };
    assert_eq!(*named, path.display().to_string(), "{what}: {error}");
    let after = (optimizer.moment(stream, 0, 0).unwrap(), optimizer.counters(stream, 1).unwrap());
    assert_eq!(before, after, "{what}");
    error
}

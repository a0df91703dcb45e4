//! Runs the fuzz targets on their corpus and on mutations of it, without a fuzzer, so that they always compile and
//! pass.

#[path = "../fuzz/src/lib.rs"]
#[expect(unreachable_pub, reason = "it is a library in fuzz/")]
mod targets;

use std::fs;
use std::path::Path;

/// A small generator of noise (xorshift64). The same seed gives the same noise.
struct Noise(u64);

impl Noise {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 33).unwrap() % limit.max(1)
    }

    fn mutated(&mut self, corpus: &[Vec<u8>]) -> Vec<u8> {
        let mut bytes = corpus[self.below(corpus.len())].clone();
        for _ in 0..=self.below(4) {
            let at = self.below(bytes.len() + 1);
            match self.below(5) {
                0 => bytes.truncate(at),
                1 => bytes.insert(at, [0x00, 0x01, 0x7f, 0x80, 0xff][self.below(5)]),
                2 => {
                    let other = &corpus[self.below(corpus.len())];
                    bytes.truncate(at);
                    bytes.extend_from_slice(&other[self.below(other.len() + 1)..]);
                }
                _ if at < bytes.len() => bytes[at] ^= 1 << self.below(8),
                _ => bytes.push(self.below(256) as u8),
            }
        }
        bytes
    }
}

// One test for all targets, because memory is counted for the whole process.
#[test]
fn all_targets_pass_on_their_corpus_and_on_noise() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz");
    for (name, target) in targets::TARGETS {
        assert!(folder.join(format!("fuzz_targets/{name}.rs")).is_file(), "{name} is no target");
        let entries = fs::read_dir(folder.join("corpus").join(name)).unwrap();
        let mut corpus: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
        corpus.sort();
        let corpus: Vec<Vec<u8>> = corpus.into_iter().map(|path| fs::read(path).unwrap()).collect();
        assert!(!corpus.is_empty(), "{name} has no corpus");
        corpus.iter().for_each(|bytes| target(bytes));
        let mut noise = Noise(0x9e37_79b9_7f4a_7c15);
        for round in 0..500 {
            let bytes = noise.mutated(&corpus);
            // If a target fails, print its input.
            let result = std::panic::catch_unwind(|| target(&bytes));
            assert!(result.is_ok(), "{name}, round {round}: {bytes:02x?}");
        }
    }
    assert_eq!(targets::TARGETS.len(), fs::read_dir(folder.join("fuzz_targets")).unwrap().count());
}

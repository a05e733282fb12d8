//! The memory that the requests of a listener take. Like connections it is given by source address, so
//! that no client takes all of it.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

/// All of it. Clones speak of the same.
#[derive(Clone)]
pub(super) struct Memory(Arc<Shared>);

struct Shared {
    in_all: usize,
    per_source: usize,
    taken: Mutex<Taken>,
}

#[derive(Default)]
struct Taken {
    sum: usize,
    by_source: HashMap<IpAddr, usize>,
}

impl Memory {
    pub(super) fn new(in_all: usize, per_source: usize) -> Self {
        Self(Arc::new(Shared { in_all, per_source, taken: Mutex::default() }))
    }

    /// So many bytes for a request from `source`; none where too little is left. Nobody waits for it: who
    /// waits takes memory too.
    pub(super) fn take(&self, source: IpAddr, bytes: usize) -> Option<Share> {
        let source = source.to_canonical();
        self.0.take(source, bytes).then(|| Share { of: self.clone(), source, bytes })
    }
}

impl Shared {
    fn take(&self, source: IpAddr, bytes: usize) -> bool {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let sum = taken.sum.saturating_add(bytes);
        let of_source = taken.by_source.get(&source).copied().unwrap_or_default().saturating_add(bytes);
        let fits = sum <= self.in_all && of_source <= self.per_source;
        if fits {
            taken.sum = sum;
            taken.by_source.insert(source, of_source);
        }
        fits
    }

    fn give_back(&self, source: IpAddr, bytes: usize) {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        taken.sum -= bytes;
        let left = taken.by_source.get(&source).copied().unwrap_or_default().saturating_sub(bytes);
        if left == 0 {
            taken.by_source.remove(&source);
        } else {
            taken.by_source.insert(source, left);
        }
    }
}

/// What one request may take, given back when it is dropped.
pub(super) struct Share {
    of: Memory,
    source: IpAddr,
    bytes: usize,
}

impl Drop for Share {
    fn drop(&mut self) {
        self.of.0.give_back(self.source, self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_takes_all_of_it_and_it_is_given_back() {
        let memory = Memory::new(100, 60);
        let [one, two, three] = [1, 2, 3].map(|host| IpAddr::from([10, 0, 0, host]));
        let first = memory.take(one, 50).unwrap();
        assert!(memory.take(one, 11).is_none(), "its own share is used up");
        let second = memory.take(two, 45).unwrap();
        assert!(memory.take(three, 6).is_none(), "all is used up");
        assert!(memory.take(three, 5).is_some());
        drop(first);
        assert!(memory.take(one, 55).is_some());
        drop(second);
        let taken = memory.0.taken.lock().unwrap();
        assert!(taken.sum == 0 && taken.by_source.is_empty());
    }

    #[test]
    fn an_address_is_the_same_however_it_is_written() {
        let memory = Memory::new(100, 60);
        let _first = memory.take("10.0.0.1".parse().unwrap(), 60).unwrap();
        assert!(memory.take("::ffff:10.0.0.1".parse().unwrap(), 1).is_none());
    }
}

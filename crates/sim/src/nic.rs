//! stub
use crate::plan::Plan;
use crate::random::Random;
use electrode_fastpath::abi::Block;
use electrode_fastpath::host::Word;

pub(crate) enum Verdict { Pass(Vec<u8>), Send(Vec<u8>), Drop, Fault(String) }
pub(crate) struct Engine;
pub struct Programs;
impl Programs { pub fn new() -> Result<Programs, std::io::Error> { Ok(Programs) } pub(crate) fn engine(&self, _: &Plan, _: usize, _: Random) -> Engine { Engine } }
impl Engine {
    pub(crate) fn start(&mut self, _: usize, _: Vec<u8>, _: u32) -> Option<Verdict> { None }
    pub(crate) fn go_on(&mut self, _: usize, _: u32) -> Option<Verdict> { None }
    pub(crate) fn egress(&mut self, f: Vec<u8>) -> Vec<Vec<u8>> { vec![f] }
    pub(crate) fn load(&self, _: Word) -> u64 { 0 }
    pub(crate) fn store(&mut self, _: Word, _: u64) {}
    pub(crate) fn fetch_add(&mut self, _: Word, _: u64) -> u64 { 0 }
    pub(crate) fn compare_exchange(&mut self, _: Word, _: u64, _: u64) -> u64 { 0 }
    pub(crate) fn write_block_word(&mut self, _: usize, _: usize, _: &Block) {}
    pub(crate) fn ring_used(&self) -> u64 { 0 }
    pub(crate) fn take_record(&mut self) -> Option<Vec<u8>> { None }
    pub(crate) fn untaken(&self) -> Vec<Vec<u8>> { Vec::new() }
    pub(crate) fn counters(&self) -> Vec<(String, u64)> { Vec::new() }
    pub(crate) fn image(&self) -> Vec<u8> { Vec::new() }
    pub(crate) fn take_woken(&mut self) -> bool { false }
    pub(crate) fn set_time(&mut self, _: u64) {}
    pub(crate) fn set_reserve_failure(&mut self, _: u64) {}
}

//! The packet under a program, as buffers of the kernel hold it: room in front, the linear part, what is in fragments.
//!
//! ```text
//!   0        meta       data            end            total          bytes.len()
//!   | headroom | metadata | linear part  | fragments     | tailroom     |
//! ```
//! Offsets of packet pointers count from the buffer's start. A helper that moves any of it raises the generation, and
//! every pointer of the one before is stale.

use super::map::Errno;

/// `XDP_PACKET_HEADROOM`: bytes in front of a packet that comes in.
pub const HEADROOM: usize = 256;
/// `sizeof(struct xdp_frame)`, kept at the headroom's start.
const FRAME_BYTES: usize = 40;
/// Where a page's linear part ends, counted from the packet's start: a page, less headroom and `skb_shared_info`.
pub const XDP_LINEAR_BYTES: usize = 4096 - HEADROOM - 320;
/// `ETH_HLEN`.
const ETHERNET_BYTES: usize = 14;
/// The longest packet.
pub const MAX_PACKET_BYTES: usize = 1 << 16;

/// A packet's bytes and their bounds.
#[derive(Clone, Debug)]
pub(super) struct Buffer {
    pub(super) bytes: Vec<u8>,
    pub(super) meta: usize,
    pub(super) data: usize,
    /// The end of what programs reach directly.
    pub(super) end: usize,
    pub(super) total: usize,
    pub(super) generation: u32,
}

impl Buffer {
    /// `linear` bytes of the packet are reachable directly.
    pub(super) fn new(packet: &[u8], linear: usize) -> Buffer {
        let mut bytes = vec![0; HEADROOM + packet.len().max(XDP_LINEAR_BYTES)];
        bytes[HEADROOM..HEADROOM + packet.len()].copy_from_slice(packet);
        Buffer {
            bytes,
            meta: HEADROOM,
            data: HEADROOM,
            end: HEADROOM + linear.min(packet.len()),
            total: HEADROOM + packet.len(),
            generation: 1,
        }
    }

    pub(super) fn packet(&self) -> &[u8] {
        &self.bytes[self.data..self.total]
    }

    pub(super) fn len(&self) -> usize {
        self.total - self.data
    }

    pub(super) fn moved(&mut self) {
        self.generation += 1;
    }

    fn fragmented(&self) -> bool {
        self.end < self.total
    }

    /// `bpf_xdp_adjust_head`.
    pub(super) fn xdp_adjust_head(&mut self, by: i32) -> Result<(), Errno> {
        let metadata = self.data - self.meta;
        let data = self.data as i64 + i64::from(by);
        if data < (FRAME_BYTES + metadata) as i64 || data > self.end as i64 - ETHERNET_BYTES as i64
        {
            return Err(Errno::EINVAL);
        }
        let data = data as usize;
        self.bytes
            .copy_within(self.meta..self.data, data - metadata);
        self.meta = data - metadata;
        self.data = data;
        Ok(())
    }

    /// `bpf_xdp_adjust_meta`: at most 252 bytes, in words.
    pub(super) fn xdp_adjust_meta(&mut self, by: i32) -> Result<(), Errno> {
        let meta = self.meta as i64 + i64::from(by);
        if meta < FRAME_BYTES as i64 || meta > self.data as i64 {
            return Err(Errno::EINVAL);
        }
        let metadata = self.data - meta as usize;
        if !metadata.is_multiple_of(4) || metadata > 252 {
            return Err(Errno::EINVAL);
        }
        self.meta = meta as usize;
        Ok(())
    }

    /// `bpf_xdp_adjust_tail`; bytes that are added are zero.
    pub(super) fn xdp_adjust_tail(&mut self, by: i32) -> Result<(), Errno> {
        let total = self.total as i64 + i64::from(by);
        if total < (self.data + ETHERNET_BYTES) as i64 {
            return Err(Errno::EINVAL);
        }
        let total = total as usize;
        if self.fragmented() {
            if total > self.bytes.len() {
                return Err(Errno::EINVAL);
            }
            self.zero_new(total);
            self.end = self.end.min(total);
        } else {
            if total > HEADROOM + XDP_LINEAR_BYTES && by > 0 {
                return Err(Errno::EINVAL);
            }
            self.zero_new(total);
            self.end = total;
        }
        self.total = total;
        Ok(())
    }

    /// `bpf_skb_pull_data`: makes the first `bytes` reachable directly; 0 means what already is.
    pub(super) fn pull(&mut self, bytes: u32) -> Result<(), Errno> {
        if bytes as usize > self.len() {
            return Err(Errno::ENOMEM);
        }
        self.end = self.end.max(self.data + bytes as usize);
        Ok(())
    }

    /// `bpf_skb_change_tail`: makes the packet `bytes` long.
    pub(super) fn change_tail(&mut self, bytes: u32) -> Result<(), Errno> {
        let bytes = bytes as usize;
        if !(ETHERNET_BYTES..=MAX_PACKET_BYTES).contains(&bytes) {
            return Err(Errno::EINVAL);
        }
        let total = self.data + bytes;
        if self.bytes.len() < total {
            self.bytes.resize(total, 0);
        }
        self.zero_new(total);
        let linear = !self.fragmented();
        self.total = total;
        self.end = if linear { total } else { self.end.min(total) };
        Ok(())
    }

    /// `bpf_skb_change_head`: that many zeros in front.
    pub(super) fn change_head(&mut self, bytes: u32) -> Result<(), Errno> {
        let bytes = bytes as usize;
        if self.len() + bytes > MAX_PACKET_BYTES {
            return Err(Errno::EINVAL);
        }
        self.insert(0, bytes);
        Ok(())
    }

    /// Makes room of `bytes` zeros at `at` bytes from the packet's start.
    pub(super) fn insert(&mut self, at: usize, bytes: usize) {
        if self.data < bytes {
            let more = bytes - self.data;
            self.bytes.splice(0..0, std::iter::repeat_n(0, more));
            self.data += more;
            self.end += more;
            self.total += more;
        }
        self.bytes
            .copy_within(self.data..self.data + at, self.data - bytes);
        self.data -= bytes;
        self.meta = self.data;
        self.bytes[self.data + at..self.data + at + bytes].fill(0);
    }

    /// Takes `bytes` out at `at` bytes from the packet's start.
    pub(super) fn remove(&mut self, at: usize, bytes: usize) {
        self.bytes
            .copy_within(self.data..self.data + at, self.data + bytes);
        self.data += bytes;
        self.meta = self.data;
    }

    fn zero_new(&mut self, total: usize) {
        if total > self.total {
            self.bytes[self.total..total].fill(0);
        }
    }
}

/// What an XDP program gets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct XdpInput {
    /// The frame.
    pub packet: Vec<u8>,
    /// Bytes of it in the linear part; None for all. Less needs a program of `xdp.frags`.
    pub linear: Option<usize>,
    /// `ingress_ifindex`.
    pub ingress_ifindex: u32,
    /// `rx_queue_index`.
    pub rx_queue_index: u32,
    /// `egress_ifindex`, for programs in device maps.
    pub egress_ifindex: u32,
}

/// How far the transport checksum of a socket buffer has got.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Checksum {
    /// The packet carries its sum; nobody has looked at it (`CHECKSUM_NONE`, `CHECKSUM_UNNECESSARY`).
    #[default]
    None,
    /// The sum's place holds the pseudo header's sum; the device does the rest (`CHECKSUM_PARTIAL`).
    Partial,
}

/// What a TC program gets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SkbInput {
    /// The frame, from the Ethernet header on.
    pub packet: Vec<u8>,
    /// Bytes of it that can be reached directly at first; None for all.
    pub linear: Option<usize>,
    /// The checksum's state.
    pub checksum: Checksum,
    /// `pkt_type`.
    pub pkt_type: u32,
    /// `mark`.
    pub mark: u32,
    /// `queue_mapping`.
    pub queue_mapping: u32,
    /// `protocol` in host order; None for the frame's EtherType.
    pub protocol: Option<u16>,
    /// The tag in metadata: protocol (0x8100) and control information.
    pub vlan: Option<(u16, u16)>,
    /// `priority`.
    pub priority: u32,
    /// `ingress_ifindex`, 0 for what this host sends.
    pub ingress_ifindex: u32,
    /// `ifindex`.
    pub ifindex: u32,
    /// `tc_index`.
    pub tc_index: u32,
    /// `cb`.
    pub cb: [u32; 5],
    /// `hash`.
    pub hash: u32,
    /// `tc_classid`.
    pub tc_classid: u32,
    /// `napi_id`.
    pub napi_id: u32,
    /// `tstamp`.
    pub tstamp: u64,
    /// `hwtstamp`.
    pub hwtstamp: u64,
    /// `gso_segs`.
    pub gso_segs: u32,
    /// `gso_size`.
    pub gso_size: u32,
}

/// What a program is called with.
#[derive(Clone, Debug)]
pub enum Input {
    /// For a raw program: memory in r1, its length in r2.
    Memory(Vec<u8>),
    /// For an XDP program.
    Xdp(XdpInput),
    /// For a TC program.
    Skb(SkbInput),
}

impl XdpInput {
    /// This frame, on interface 1.
    pub fn new(packet: impl Into<Vec<u8>>) -> XdpInput {
        XdpInput {
            packet: packet.into(),
            ingress_ifindex: 1,
            ..XdpInput::default()
        }
    }
}

impl SkbInput {
    /// This frame, on interface 1.
    pub fn new(packet: impl Into<Vec<u8>>) -> SkbInput {
        SkbInput {
            packet: packet.into(),
            ifindex: 1,
            ..SkbInput::default()
        }
    }
}

impl From<XdpInput> for Input {
    fn from(input: XdpInput) -> Input {
        Input::Xdp(input)
    }
}

impl From<SkbInput> for Input {
    fn from(input: SkbInput) -> Input {
        Input::Skb(input)
    }
}

/// A packet that left by a helper.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Output {
    /// How.
    pub kind: OutputKind,
    /// The interface, or the entry of a CPU or XSK map.
    pub ifindex: u32,
    /// The helper's flags.
    pub flags: u64,
    /// The mark of a socket buffer; 0 in XDP.
    pub mark: u32,
    /// The tag in a socket buffer's metadata.
    pub vlan: Option<(u16, u16)>,
    /// How far its transport checksum has got.
    pub checksum: Checksum,
    /// The frame.
    pub packet: Vec<u8>,
}

/// How a packet left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum OutputKind {
    /// `bpf_clone_redirect`.
    Clone,
    /// `bpf_redirect`, at the program's end.
    Redirect,
    /// `bpf_redirect_peer`, at the program's end.
    RedirectPeer,
    /// `bpf_redirect_map`, at the program's end.
    RedirectMap,
}

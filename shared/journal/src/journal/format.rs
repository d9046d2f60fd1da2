//! The bytes: a page at the start of each file, and a header before each payload.
//!
//! Every record says which journal and which file it is of and where in the order it stands, all
//! under its check sum. So bytes that an earlier life of a file left behind, or that belong to
//! another file, are never taken for records, whatever they contain.

/// Bytes of the page before a file's first record.
pub const FILE_HEADER_BYTES: usize = 4_096;

/// Bytes before each payload.
pub const RECORD_HEADER_BYTES: usize = 64;

/// Where in a record header the file's number and the journal's identity stand, which end it.
pub(crate) const OWNER_AT: usize = 40;

/// Where in a record header the length of the payload stands.
pub(crate) const LENGTH_AT: usize = 4;

const MAGIC: &[u8; 8] = b"LENSJRN1";

/// Bytes of the file header that mean something; zeroes follow.
const FILE_HEAD_BYTES: usize = 48;

/// What a file says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FileHead {
    pub(crate) identity: u128,
    pub(crate) number: u64,
    /// Position of its first record.
    pub(crate) first: u64,
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let mut word = [0; 4];
    word.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(word)
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let mut word = [0; 8];
    word.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(word)
}

fn u128_at(bytes: &[u8], at: usize) -> u128 {
    let mut word = [0; 16];
    word.copy_from_slice(&bytes[at..at + 16]);
    u128::from_le_bytes(word)
}

impl FileHead {
    pub(crate) fn encode(&self) -> [u8; FILE_HEADER_BYTES] {
        let mut page = [0; FILE_HEADER_BYTES];
        page[..8].copy_from_slice(MAGIC);
        page[8..24].copy_from_slice(&self.identity.to_le_bytes());
        page[24..32].copy_from_slice(&self.number.to_le_bytes());
        page[32..40].copy_from_slice(&self.first.to_le_bytes());
        let crc = crc32c::crc32c(&page[..FILE_HEAD_BYTES - 8]);
        page[40..44].copy_from_slice(&crc.to_le_bytes());
        page
    }

    pub(crate) fn decode(page: &[u8]) -> Option<Self> {
        if page.len() < FILE_HEAD_BYTES || &page[..8] != MAGIC {
            return None;
        }
        let crc = crc32c::crc32c(&page[..FILE_HEAD_BYTES - 8]);
        (crc == u32_at(page, 40)).then(|| Self {
            identity: u128_at(page, 8),
            number: u64_at(page, 24),
            first: u64_at(page, 32),
        })
    }
}

/// What stands before a payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RecordHead {
    pub(crate) length: u32,
    pub(crate) kind: u32,
    pub(crate) position: u64,
    /// Position of the first record written together with this one.
    pub(crate) batch: u64,
    /// Records before this position were no longer wanted when it was written.
    pub(crate) trim: u64,
    pub(crate) number: u64,
    pub(crate) identity: u128,
}

/// Which bytes a check sum covers: all, unless a test plants the mistake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Covered {
    All,
    #[cfg(any(test, feature = "planted"))]
    PayloadOnly,
}

fn crc(covered: Covered, head: &[u8], payload: &[u8]) -> u32 {
    let start = match covered {
        Covered::All => crc32c::crc32c(&head[4..RECORD_HEADER_BYTES]),
        #[cfg(any(test, feature = "planted"))]
        Covered::PayloadOnly => 0,
    };
    crc32c::crc32c_append(start, payload)
}

impl RecordHead {
    /// Appends header and payload.
    pub(crate) fn encode(&self, covered: Covered, payload: &[u8], out: &mut Vec<u8>) {
        let at = out.len();
        out.extend_from_slice(&[0; 4]);
        out.extend_from_slice(&self.length.to_le_bytes());
        out.extend_from_slice(&self.kind.to_le_bytes());
        out.extend_from_slice(&[0; 4]);
        for word in [self.position, self.batch, self.trim, self.number] {
            out.extend_from_slice(&word.to_le_bytes());
        }
        out.extend_from_slice(&self.identity.to_le_bytes());
        debug_assert_eq!(out.len(), at + RECORD_HEADER_BYTES);
        let crc = crc(covered, &out[at..at + RECORD_HEADER_BYTES], payload);
        out[at..at + 4].copy_from_slice(&crc.to_le_bytes());
        out.extend_from_slice(payload);
    }

    pub(crate) fn decode(head: &[u8; RECORD_HEADER_BYTES]) -> Self {
        Self {
            length: u32_at(head, 4),
            kind: u32_at(head, 8),
            position: u64_at(head, 16),
            batch: u64_at(head, 24),
            trim: u64_at(head, 32),
            number: u64_at(head, OWNER_AT),
            identity: u128_at(head, OWNER_AT + 8),
        }
    }

    pub(crate) fn holds(
        covered: Covered,
        head: &[u8; RECORD_HEADER_BYTES],
        payload: &[u8],
    ) -> bool {
        crc(covered, head, payload) == u32_at(head, 0)
    }
}

/// The last bytes of every record header of a file.
pub(crate) fn owner(number: u64, identity: u128) -> [u8; 24] {
    let mut owner = [0; 24];
    owner[..8].copy_from_slice(&number.to_le_bytes());
    owner[8..].copy_from_slice(&identity.to_le_bytes());
    owner
}

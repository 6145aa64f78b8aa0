//! A file's pages, read without a system call. The only place of the workspace with `unsafe`.

use std::fs::File;
use std::io;
use std::ops::Range;

use memmap2::{Advice, MmapOptions, MmapRaw};

/// The first bytes of a file, mapped for reading.
///
/// The file must not become shorter while it is mapped, and a range must not be written any more
/// once it may be read; whoever maps a file sees to both.
#[derive(Debug)]
pub struct Mapping(MmapRaw);

impl Mapping {
    /// Maps the first `bytes` of a file that is at least as long.
    pub(super) fn of(file: &File, bytes: u64) -> io::Result<Self> {
        let length = usize::try_from(bytes).map_err(io::Error::other)?;
        if file.metadata()?.len() < bytes {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let map = MmapOptions::new().len(length).map_raw_read_only(file)?;
        // A page that memory pressure has taken comes back alone. Else each such page of a map
        // brings its surroundings, 8 MiB where `read_ahead_kb` says so, holes included.
        map.advise(Advice::Random)?;
        Ok(Self(map))
    }

    /// Appends `range`, in bytes from the start of the file, to `out`. `false`, with nothing
    /// appended, when not all of it is mapped.
    pub(crate) fn append_to(&self, range: Range<usize>, out: &mut Vec<u8>) -> bool {
        if range.start > range.end || range.end > self.0.len() {
            return false;
        }
        // SAFETY: The range lies inside the map, as was just checked, and `self` keeps the map
        // alive. Behind every mapped byte there is one of the file: `Mapping::of` checked its
        // length, and only segments are mapped, whose private handle is used for `set_len` in
        // `Segment::create` and `Segment::open` alone, before anybody can map it, and there only
        // to lengthen; removing a file leaves its pages to who has them mapped. Nobody writes to
        // the slice while it exists: `Segment::append_mapped` is asked for records below the visible
        // watermark, and writes go to the append position or behind it, which is never below; but for
        // `Segment::write_again`, which waits for whoever reads and keeps the map to itself meanwhile.
        let bytes = unsafe {
            std::slice::from_raw_parts(self.0.as_ptr().add(range.start), range.end - range.start)
        };
        out.extend_from_slice(bytes);
        true
    }

    /// How many bytes of `range`, from its start on, are in memory. A moment later the kernel may
    /// think otherwise. 0 where it does not say.
    pub(crate) fn bytes_in_memory(&self, range: Range<usize>) -> usize {
        let end = range.end.min(self.0.len());
        // SAFETY: It reads a constant of the system.
        let page_bytes = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
        let Some(page_bytes) = usize::try_from(page_bytes).ok().filter(|bytes| *bytes > 0) else {
            return 0;
        };
        if range.start >= end {
            return 0;
        }
        let first = range.start - range.start % page_bytes;
        let mut pages = vec![0_u8; (end - first).div_ceil(page_bytes)];
        // SAFETY: The range begins at a page and lies inside the map, which `self` keeps alive;
        // the kernel writes one byte for each of its pages, for which `pages` has room.
        let result = unsafe {
            let start = self.0.as_mut_ptr().add(first).cast();
            libc::mincore(start, end - first, pages.as_mut_ptr())
        };
        let is_there = |page: &&u8| result == 0 && **page & 1 != 0;
        let behind = first + pages.iter().take_while(is_there).count() * page_bytes;
        behind.min(end).saturating_sub(range.start)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mapping_ends_where_it_was_asked_to_and_never_behind_the_file() {
        let mut file = tempfile::tempfile().unwrap();
        io::Write::write_all(&mut file, &[5; 10_000]).unwrap();
        assert!(Mapping::of(&file, 10_001).is_err());
        let mapping = Mapping::of(&file, 9000).unwrap();
        let mut out = vec![1];
        assert!(mapping.append_to(8998..9000, &mut out) && mapping.append_to(0..0, &mut out));
        assert!(!mapping.append_to(8999..9001, &mut out));
        assert!(!mapping.append_to(Range { start: 9000, end: 8000 }, &mut out));
        assert_eq!(out, [1, 5, 5]);
        assert_eq!(mapping.bytes_in_memory(5000..20_000), 4000);
        assert_eq!(mapping.bytes_in_memory(9000..9001), 0);
    }
}

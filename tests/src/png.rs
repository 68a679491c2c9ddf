//! Pictures of any size that are what they say, for what takes files: PNG (<https://www.w3.org/TR/png-3/>).

use std::io::Write as _;

use flate2::write::ZlibEncoder;
use flate2::{Compression, Crc};

const SIGNATURE: &[u8; 8] = b"\x89PNG\r\n\x1a\n";
const WIDTH: u32 = 1024;
/// What one line takes: its filter, and three bytes a pixel.
const LINE_BYTES: usize = 1 + 3 * WIDTH as usize;
const PIECE_BYTES: usize = 64 * 1024;

/// A picture's size in pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    /// Its width.
    pub width: u32,
    /// Its height.
    pub height: u32,
}

/// A picture of noise, always the same, of at least so many bytes and hardly more.
#[expect(clippy::missing_panics_doc, clippy::expect_used, reason = "what fails only without memory, or for gigabytes")]
pub fn png(bytes_at_least: usize) -> Vec<u8> {
    let lines = bytes_at_least.div_ceil(LINE_BYTES).max(1);
    let height = u32::try_from(lines).expect("the picture is too large for a test");
    // Noise doesn't shrink, so it isn't compressed either.
    let mut packed = ZlibEncoder::new(Vec::with_capacity(bytes_at_least + LINE_BYTES), Compression::none());
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    for _ in 0..lines {
        let mut line = vec![0; LINE_BYTES];
        for byte in &mut line[1..] {
            // Marsaglia's xorshift.
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            *byte = state.to_le_bytes()[3];
        }
        packed.write_all(&line).expect("a list takes what is written");
    }
    let packed = packed.finish().expect("a list takes what is written");

    let mut picture = SIGNATURE.to_vec();
    // Eight bits a sample, colours as they are, the one way to compress, to filter and to order.
    let header = [&WIDTH.to_be_bytes()[..], &height.to_be_bytes(), &[8, 2, 0, 0, 0]].concat();
    add(&mut picture, b"IHDR", &header);
    for piece in packed.chunks(PIECE_BYTES) {
        add(&mut picture, b"IDAT", piece);
    }
    add(&mut picture, b"IEND", &[]);
    picture
}

/// The size of a picture that is whole: its signature, its header, the checksum of each of its chunks, and its end are as they
/// should be. What it shows isn't looked at.
///
/// # Errors
/// What is wrong, and where.
pub fn read_png(bytes: &[u8]) -> Result<Size, String> {
    let mut rest = bytes.strip_prefix(SIGNATURE).ok_or("it doesn't begin as a PNG does")?;
    let (mut size, mut has_content) = (None, false);
    loop {
        let at = bytes.len() - rest.len();
        let fault = |reason: &str| format!("at byte {at}: {reason}");
        let (length, after) = number(rest).ok_or_else(|| fault("it breaks off"))?;
        let end = usize::try_from(length).map_err(|error| fault(&error.to_string()))?.saturating_add(4);
        let (chunk, after) = after.split_at_checked(end).ok_or_else(|| fault("it breaks off"))?;
        let (checksum, after) = number(after).ok_or_else(|| fault("it breaks off"))?;
        if checksum_of(chunk) != checksum {
            return Err(fault("a chunk's checksum is wrong"));
        }
        rest = after;
        let (kind, content) = chunk.split_at(4);
        match (kind, size) {
            (b"IHDR", None) if content.len() == 13 => {
                let (width, after) = number(content).ok_or_else(|| fault("it breaks off"))?;
                let (height, _) = number(after).ok_or_else(|| fault("it breaks off"))?;
                if width == 0 || height == 0 {
                    return Err(fault("it has no pixels"));
                }
                size = Some(Size { width, height });
            }
            (b"IHDR", _) | (_, None) => return Err(fault("it has to begin with one header")),
            (b"IEND", Some(size)) if has_content && rest.is_empty() => return Ok(size),
            (b"IEND", _) => return Err(fault("it ends without content, or before its last byte")),
            (kind, _) => has_content |= kind == b"IDAT",
        }
    }
}

fn add(picture: &mut Vec<u8>, kind: &[u8; 4], content: &[u8]) {
    let chunk = [kind, content].concat();
    picture.extend(u32::try_from(content.len()).unwrap_or(u32::MAX).to_be_bytes());
    picture.extend(&chunk);
    picture.extend(checksum_of(&chunk).to_be_bytes());
}

fn checksum_of(chunk: &[u8]) -> u32 {
    let mut checksum = Crc::new();
    checksum.update(chunk);
    checksum.sum()
}

fn number(bytes: &[u8]) -> Option<(u32, &[u8])> {
    bytes.split_first_chunk().map(|(number, rest)| (u32::from_be_bytes(*number), rest))
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use flate2::read::ZlibDecoder;

    use super::*;

    /// The smallest picture, made by another program.
    const PIXEL: &[u8] = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\x01\0\0\0\x01\x08\x06\0\0\0\x1f\x15\xc4\x89\
        \0\0\0\nIDATx\x9cc\0\x01\0\0\x05\0\x01\r\n-\xb4\0\0\0\0IEND\xaeB`\x82";

    #[test]
    fn a_picture_is_one_and_has_its_size() {
        assert_eq!(read_png(PIXEL), Ok(Size { width: 1, height: 1 }));
        for bytes in [0, 1, 100_000, 20_000_000] {
            let picture = png(bytes);
            assert!((bytes..bytes + 20_000).contains(&picture.len()), "{bytes}: {}", picture.len());
            let height = u32::try_from(bytes.div_ceil(LINE_BYTES).max(1)).unwrap();
            assert_eq!(read_png(&picture), Ok(Size { width: WIDTH, height }));
        }
        assert_eq!(png(100_000), png(100_000), "always the same");
    }

    #[test]
    fn its_content_unpacks_to_its_pixels_and_is_noise() {
        let picture = png(100_000);
        let mut packed = Vec::new();
        let mut rest = &picture[8..];
        while let Some((length, after)) = number(rest) {
            let (chunk, after) = after.split_at(4 + length as usize);
            if chunk.starts_with(b"IDAT") {
                packed.extend(&chunk[4..]);
            }
            rest = &after[4..];
        }
        let mut pixels = Vec::new();
        ZlibDecoder::new(&*packed).read_to_end(&mut pixels).unwrap();
        assert_eq!(pixels.len(), 33 * LINE_BYTES);
        assert!(pixels.chunks(LINE_BYTES).all(|line| line[0] == 0), "each line says that it has no filter");
        let mut smallest = ZlibEncoder::new(Vec::new(), Compression::best());
        smallest.write_all(&pixels).unwrap();
        assert!(smallest.finish().unwrap().len() * 100 > pixels.len() * 99, "it doesn't shrink");
    }

    #[test]
    fn what_is_changed_or_cut_is_none() {
        let picture = png(1);
        for at in (0..picture.len()).step_by(7).chain([picture.len() - 1]) {
            assert!(read_png(&picture[..at]).is_err(), "cut at {at}");
            let mut changed = picture.clone();
            changed[at] ^= 1;
            assert!(read_png(&changed).is_err(), "changed at {at}");
        }
        assert!(read_png(&[&picture[..], b"\0"].concat()).is_err(), "more behind its end");
    }
}

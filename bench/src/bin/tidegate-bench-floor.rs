//! The least that a function on Lambda can be: asks the runtime API for events and answers each with `{}`, with nothing
//! but the standard library. `scripts/bench start` measures it as it does the functions; what it shows is the cost of
//! the machine and of the stand-in for Lambda.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;

const ANSWER: &str = "{}";

fn main() -> std::io::Result<()> {
    #[expect(clippy::disallowed_methods, reason = "the one setting of this program, and Lambda gives it so")]
    let api = std::env::var("AWS_LAMBDA_RUNTIME_API").map_err(std::io::Error::other)?;
    let stream = TcpStream::connect(&api)?;
    stream.set_nodelay(true)?;
    let mut answers = BufReader::new(stream.try_clone()?);
    let mut requests = stream;
    loop {
        requests
            .write_all(format!("GET /2018-06-01/runtime/invocation/next HTTP/1.1\r\nhost: {api}\r\n\r\n").as_bytes())?;
        let id = read_answer(&mut answers)?.unwrap_or_default();
        let length = ANSWER.len();
        let head = format!("POST /2018-06-01/runtime/invocation/{id}/response HTTP/1.1\r\nhost: {api}");
        requests.write_all(format!("{head}\r\ncontent-length: {length}\r\n\r\n{ANSWER}").as_bytes())?;
        read_answer(&mut answers)?;
    }
}

/// Reads an answer to its end; the request's id where it has one.
fn read_answer(from: &mut impl BufRead) -> std::io::Result<Option<String>> {
    let (mut id, mut length) = (None, 0);
    loop {
        let mut line = String::new();
        if from.read_line(&mut line)? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        match line.trim_end().split_once(": ") {
            Some(("content-length", value)) => length = value.parse().map_err(std::io::Error::other)?,
            Some(("lambda-runtime-aws-request-id", value)) => id = Some(value.to_owned()),
            Some(_) => {}
            None if line.trim_end().is_empty() => break,
            None => {}
        }
    }
    from.read_exact(&mut vec![0; length])?;
    Ok(id)
}

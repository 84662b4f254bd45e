//! What a board's maker does with our boot scripts: fills in the places left to the board.

use anyhow::{Context, ensure};

/// A script with other lines where the board fills in its own, one text for each such place.
pub fn with_board(script: &str, texts: &[&str]) -> anyhow::Result<String> {
    let mut result = String::new();
    let mut texts = texts.iter();
    let mut in_board = false;
    for line in script.lines() {
        if line.trim_start().starts_with("# ---- board:") {
            in_board = true;
            result += texts.next().context("the script has more places for the board")?;
        } else if in_board && line.trim_start().starts_with("# ---- end") {
            in_board = false;
        } else if !in_board {
            result += line;
        }
        result.push('\n');
    }
    ensure!(!in_board && texts.next().is_none(), "the script has fewer places for the board");
    Ok(result)
}

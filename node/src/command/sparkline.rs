//! Numbers as a drawing of letters: `LATENCY GRAPH`.
//!
//! Source: `sparkline.c` of Redis 7.2.

/// Columns of one drawing; what is more goes below it.
pub const COLUMNS: usize = 80;

/// Lines of it, and steps of a line.
const ROWS: usize = 4;
const STEPS: [char; 3] = ['_', 'o', '#'];

/// Draws numbers, oldest first, each above its label, which reads downwards.
pub fn draw(samples: &[(u64, String)]) -> String {
    let numbers = || samples.iter().map(|(number, _)| *number);
    let (least, most) = (numbers().min().unwrap_or(0), numbers().max().unwrap_or(0));
    let heights: Vec<usize> = numbers().map(|number| height(number, least, most)).collect();
    let mut text = String::new();
    for (heights, samples) in heights.chunks(COLUMNS).zip(samples.chunks(COLUMNS)) {
        if !text.is_empty() {
            text.push('\n');
        }
        for row in (0..ROWS).rev() {
            text.extend(heights.iter().map(|&height| letter(height, row)));
            text.push('\n');
        }
        text.extend(std::iter::repeat_n(' ', samples.len()));
        text.push('\n');
        let longest = samples.iter().map(|(_, label)| label.len()).max().unwrap_or(0);
        for at in 0..longest {
            text.extend(
                samples.iter().map(|(_, label)| label.as_bytes().get(at).map_or(' ', |&byte| byte.into())),
            );
            text.push('\n');
        }
    }
    text
}

/// How many steps high a number is.
fn height(number: u64, least: u64, most: u64) -> usize {
    let steps = (ROWS * STEPS.len()) as u64;
    let step = (number - least).saturating_mul(steps) / (most - least).max(1);
    step.min(steps - 1) as usize
}

/// What is drawn in a row, the lowest being 0, of what is so high.
fn letter(height: usize, row: usize) -> char {
    match height.checked_sub(row * STEPS.len()) {
        None => ' ',
        Some(above) => STEPS.get(above).copied().unwrap_or('|'),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_drawn_as_redis_draws_it() {
        let samples = [(50, "4s"), (31, "3s"), (110, "1s"), (70, "0s")];
        let samples = samples.map(|(number, label)| (number, label.to_owned()));
        assert_eq!(draw(&samples), "  # \n  | \n  |#\n#_||\n    \n4310\nssss\n");
        assert_eq!(draw(&[(7, "12m".to_owned())]), " \n \n \n_\n \n1\n2\nm\n");
        assert_eq!(draw(&vec![(1, "1s".to_owned()); 81]).lines().count(), 2 * 7 + 1);
    }
}

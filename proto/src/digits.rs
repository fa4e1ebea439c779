//! The decimal digits of a double, as Redis 7.2 chooses them.
//!
//! Redis uses Grisu2, which finds digits that read back the same with integers of 64
//! bits. For one double in three hundred they are not the fewest, or not the nearest: those,
//! too, are what clients see, so this is Grisu2 and no better one.
//!
//! Source: F. Loitsch, Printing Floating-Point Numbers Quickly and Accurately with
//! Integers (2010), section 5.

/// A number `fraction * 2^exponent`.
#[derive(Clone, Copy)]
struct Binary {
    fraction: u64,
    exponent: i32,
}

impl Binary {
    /// With the highest bit set.
    fn normalized(self) -> Self {
        let shift = self.fraction.leading_zeros();
        Self { fraction: self.fraction << shift, exponent: self.exponent - shift as i32 }
    }

    /// The upper half of the product, rounded.
    fn times(self, other: Self) -> Self {
        let product = u128::from(self.fraction) * u128::from(other.fraction) + (1 << 63);
        Self { fraction: (product >> 64) as u64, exponent: self.exponent + other.exponent + 64 }
    }
}

/// The digits of a positive finite number, and the power of ten that the last one counts.
pub(crate) fn digits(x: f64) -> (String, i32) {
    const HIDDEN: u64 = 1 << 52;
    let (field, fraction) = ((x.to_bits() >> 52) as i32, x.to_bits() & (HIDDEN - 1));
    // Subnormal numbers lack the hidden bit and have the exponent of the smallest others.
    let fraction = if field == 0 { fraction } else { fraction | HIDDEN };
    let exponent = field.max(1) - 1075;
    // Half-way to the neighbours; below a power of two they are twice as close.
    let upper = Binary { fraction: 2 * fraction + 1, exponent: exponent - 1 }.normalized();
    let shift = if fraction == HIDDEN { 2 } else { 1 };
    let lower = ((fraction << shift) - 1) << (exponent - shift - upper.exponent);
    let lower = Binary { fraction: lower, exponent: upper.exponent };

    let (power, ten) = scale(upper.exponent);
    let exact = Binary { fraction, exponent }.normalized().times(power);
    // The products may be wrong by one: within these all is certain.
    let upper = upper.times(power);
    let (least, most) = (lower.times(power).fraction + 1, upper.fraction - 1);
    let (digits, last) = generate(most, -upper.exponent as u32, most - least, most - exact.fraction);
    (digits, last - ten)
}

/// A power of ten that brings a number with this exponent to an exponent between -60 and
/// -32, so that its whole part has 32 bits; and which.
fn scale(exponent: i32) -> (Binary, i32) {
    const LOG10_OF_2: f64 = 0.301_029_995_663_981_14;
    let power = |at: usize| {
        let ten = TEN_FIRST + TEN_STEP * at as i32;
        // The logarithm of ten to base two, in units of 2^-19, is exact enough here.
        (Binary { fraction: POWERS[at], exponent: ((ten * 1_741_647) >> 19) - 63 }, ten)
    };
    let about = (-f64::from(exponent + POWERS.len() as i32) * LOG10_OF_2) as i32;
    let mut at = ((about - TEN_FIRST) / TEN_STEP) as usize;
    loop {
        match exponent + power(at).0.exponent + 64 {
            ..-60 => at += 1,
            -31.. => at -= 1,
            _ => return power(at),
        }
    }
}

/// The fewest digits of a number that is at most `span` below `most`, drawn nearer to the
/// one that is `aim` below it. The lowest `bits` bits of all are behind the point.
fn generate(most: u64, bits: u32, mut span: u64, mut aim: u64) -> (String, i32) {
    let one = 1_u64 << bits;
    let (mut whole, mut rest) = (most >> bits, most & (one - 1));
    let mut digits: Vec<u8> = Vec::with_capacity(20);
    let push = |digits: &mut Vec<u8>, digit: u64| {
        if digit > 0 || !digits.is_empty() {
            digits.push(b'0' + digit as u8);
        }
    };
    for place in (0..10).rev() {
        let unit = 10_u64.pow(place);
        push(&mut digits, whole / unit);
        whole %= unit;
        let left = (whole << bits) + rest;
        if left <= span {
            return (nearer(digits, span, left, unit << bits, aim), place as i32);
        }
    }
    let mut last = 0;
    loop {
        rest *= 10;
        span *= 10;
        aim = aim.wrapping_mul(10);
        last -= 1;
        push(&mut digits, rest >> bits);
        rest &= one - 1;
        if rest < span {
            return (nearer(digits, span, rest, one, aim), last);
        }
    }
}

/// Lowers the last digit while that brings the number nearer to the one aimed at. `left`
/// is what the digits leave of the most there may be, `unit` what the last one counts.
fn nearer(mut digits: Vec<u8>, span: u64, mut left: u64, unit: u64, aim: u64) -> String {
    while left < aim && span - left >= unit && (left + unit < aim || aim - left > left + unit - aim) {
        if let Some(last) = digits.last_mut() {
            *last -= 1;
        }
        left += unit;
    }
    String::from_utf8(digits).expect("digits are text")
}

/// The powers of ten in [`POWERS`] begin here, and each is so many further.
const TEN_FIRST: i32 = -348;
const TEN_STEP: i32 = 8;
/// Powers of ten, rounded to 64 bits.
const POWERS: [u64; 87] = [
    0xfa8fd5a0081c0288,
    0xbaaee17fa23ebf76,
    0x8b16fb203055ac76,
    0xcf42894a5dce35ea,
    0x9a6bb0aa55653b2d,
    0xe61acf033d1a45df,
    0xab70fe17c79ac6ca,
    0xff77b1fcbebcdc4f,
    0xbe5691ef416bd60c,
    0x8dd01fad907ffc3c,
    0xd3515c2831559a83,
    0x9d71ac8fada6c9b5,
    0xea9c227723ee8bcb,
    0xaecc49914078536d,
    0x823c12795db6ce57,
    0xc21094364dfb5637,
    0x9096ea6f3848984f,
    0xd77485cb25823ac7,
    0xa086cfcd97bf97f4,
    0xef340a98172aace5,
    0xb23867fb2a35b28e,
    0x84c8d4dfd2c63f3b,
    0xc5dd44271ad3cdba,
    0x936b9fcebb25c996,
    0xdbac6c247d62a584,
    0xa3ab66580d5fdaf6,
    0xf3e2f893dec3f126,
    0xb5b5ada8aaff80b8,
    0x87625f056c7c4a8b,
    0xc9bcff6034c13053,
    0x964e858c91ba2655,
    0xdff9772470297ebd,
    0xa6dfbd9fb8e5b88f,
    0xf8a95fcf88747d94,
    0xb94470938fa89bcf,
    0x8a08f0f8bf0f156b,
    0xcdb02555653131b6,
    0x993fe2c6d07b7fac,
    0xe45c10c42a2b3b06,
    0xaa242499697392d3,
    0xfd87b5f28300ca0e,
    0xbce5086492111aeb,
    0x8cbccc096f5088cc,
    0xd1b71758e219652c,
    0x9c40000000000000,
    0xe8d4a51000000000,
    0xad78ebc5ac620000,
    0x813f3978f8940984,
    0xc097ce7bc90715b3,
    0x8f7e32ce7bea5c70,
    0xd5d238a4abe98068,
    0x9f4f2726179a2245,
    0xed63a231d4c4fb27,
    0xb0de65388cc8ada8,
    0x83c7088e1aab65db,
    0xc45d1df942711d9a,
    0x924d692ca61be758,
    0xda01ee641a708dea,
    0xa26da3999aef774a,
    0xf209787bb47d6b85,
    0xb454e4a179dd1877,
    0x865b86925b9bc5c2,
    0xc83553c5c8965d3d,
    0x952ab45cfa97a0b3,
    0xde469fbd99a05fe3,
    0xa59bc234db398c25,
    0xf6c69a72a3989f5c,
    0xb7dcbf5354e9bece,
    0x88fcf317f22241e2,
    0xcc20ce9bd35c78a5,
    0x98165af37b2153df,
    0xe2a0b5dc971f303a,
    0xa8d9d1535ce3b396,
    0xfb9b7cd9a4a7443c,
    0xbb764c4ca7a44410,
    0x8bab8eefb6409c1a,
    0xd01fef10a657842c,
    0x9b10a4e5e9913129,
    0xe7109bfba19c0c9d,
    0xac2820d9623bf429,
    0x80444b5e7aa7cf85,
    0xbf21e44003acdd2d,
    0x8e679c2f5e44ff8f,
    0xd433179d9c8cb841,
    0x9e19db92b4e31ba9,
    0xeb96bf6ebadf77d9,
    0xaf87023b9bf0ee6b,
];

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn back(x: f64) -> f64 {
        let (digits, last) = digits(x);
        format!("{digits}e{last}").parse().expect("it is a number")
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(20_000))]

        #[test]
        fn digits_read_back(bits in 1_u64..f64::INFINITY.to_bits()) {
            let x = f64::from_bits(bits);
            prop_assert_eq!(back(x), x);
            prop_assert!(digits(x).0.len() <= 17);
        }
    }

    #[test]
    fn the_ends_of_all_ranges_read_back() {
        let ends = (0..2047_u64)
            .flat_map(|exponent| [exponent << 52, (exponent << 52) + 1, (exponent << 52).wrapping_sub(1)]);
        for bits in ends.filter(|bits| (1..f64::INFINITY.to_bits()).contains(bits)) {
            assert_eq!(back(f64::from_bits(bits)).to_bits(), bits);
        }
    }
}

//! Our own string and table functions against those of stock Lua 5.1: same
//! results, same errors, on anything. (A function of the prelude that is *returned*
//! is a tail call, where Lua no longer knows the caller's line: so none is here.)

use proptest::prelude::*;

use super::*;

/// Runs an expression in stock Lua and in ours, both with `S`, `P`, `R` set.
fn both(expression: &str, subject: &str, pattern: &str, replacement: &str) -> (String, String) {
    let script = format!(
        "local S, P, R = {}, {}, {}
         local function shown(ok, ...)
           local out = {{tostring(ok)}}
           for i = 1, select('#', ...) do out[#out + 1] = tostring((select(i, ...))) end
           return table.concat(out, '|')
         end
         return shown(pcall(function() {expression} end))",
        quoted(subject),
        quoted(pattern),
        quoted(replacement),
    );
    let lua = mlua::Lua::new();
    let stock: mlua::LuaString =
        lua.load(&script).set_name("@user_script").eval().expect("stock Lua runs it");
    let ours = ENGINE.with_borrow_mut(|engine| text(engine, &script));
    (String::from_utf8_lossy(&stock.as_bytes()).into_owned(), ours)
}

thread_local! {
    static ENGINE: std::cell::RefCell<Engine> = std::cell::RefCell::new(engine());
}

fn quoted(text: &str) -> String {
    let escaped: String = text.bytes().map(|byte| format!("\\{byte:03}")).collect();
    format!("'{escaped}'")
}

const PATTERN: &str = "[ab%().*+?\\-^$\\[\\]dwf1=]{0,10}";
const SUBJECT: &str = "[ab1 =()\\]\\[%]{0,14}";

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn find_and_match_agree(subject in SUBJECT, pattern in PATTERN, init in -4_i32..16) {
        for function in ["find", "match"] {
            let (stock, ours) = both(&format!("return string.{function}(S, P, {init})"), &subject, &pattern, "");
            prop_assert_eq!(stock, ours, "{} {:?} {:?}", function, subject, pattern);
        }
    }

    #[test]
    fn gsub_agrees(subject in SUBJECT, pattern in PATTERN, replacement in "[xy%0-3]{0,5}", most in -1_i32..5) {
        let calls = [
            format!("local r, n = string.gsub(S, P, R, {most}) return r, n"),
            "local r, n = string.gsub(S, P, R) return r, n".to_owned(),
            "local r, n = string.gsub(S, P, {a = 'A', ['1'] = 1, b = false}) return r, n".to_owned(),
            "local r, n = string.gsub(S, P, function(x, y) return y and x .. y end) return r, n".to_owned(),
            "local r, n = string.gsub(S, P, setmetatable({}, {__index = function(_, k) return '<' .. k .. '>' end})) return r, n".to_owned(),
        ];
        for call in calls {
            let (stock, ours) = both(&call, &subject, &pattern, &replacement);
            prop_assert_eq!(stock, ours, "{} {:?} {:?} {:?}", call, subject, pattern, replacement);
        }
    }

    #[test]
    fn gmatch_agrees(subject in SUBJECT, pattern in PATTERN) {
        let call = "local all = {} for x, y in string.gmatch(S, P) do all[#all + 1] = tostring(x) .. tostring(y) end return unpack(all)";
        let (stock, ours) = both(call, &subject, &pattern, "");
        prop_assert_eq!(stock, ours, "{:?} {:?}", subject, pattern);
    }

    /// Equal elements land where stock Lua puts them, and a comparison that
    /// contradicts itself is refused or tolerated alike.
    #[test]
    fn sort_agrees(items in prop::collection::vec(0_u8..9, 0..40), wrong in 0_u8..3) {
        let list: Vec<String> = items.iter().enumerate().map(|(i, k)| format!("{{k = {k}, i = {i}}}")).collect();
        let less = ["a.k < b.k", "a.k <= b.k", "(a.k * 7 + b.k) % 3 == 0"][usize::from(wrong)];
        let call = format!(
            "local t = {{{}}}
             table.sort(t, function(a, b) return {less} end)
             for i = 1, #t do t[i] = t[i].k .. '.' .. t[i].i end
             return table.concat(t, ' ')",
            list.join(", ")
        );
        let (stock, ours) = both(&call, "", "", "");
        // Past the ends stock Lua compares with nil, in a frame that has no line.
        let (stock, ours) = (stock.replace("user_script:3: ", ""), ours.replace("user_script:3: ", ""));
        prop_assert_eq!(stock, ours);
    }

    #[test]
    fn numbers_are_written_alike(x in any::<f64>()) {
        let lua = mlua::Lua::new();
        for precision in [14, 17] {
            let format: mlua::Function = lua.load(format!("local x = ... return string.format('%.{precision}g', x)")).into_function().expect("it compiles");
            let stock: String = format.call(x).expect("it runs");
            prop_assert_eq!(stock, number::general(x, precision));
        }
    }
}

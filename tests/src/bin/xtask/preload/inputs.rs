//! What the programs are given.

use std::io::Write as _;
use std::path::Path;

use anyhow::Result;

/// What the programs are given, made anew so that it is the same everywhere.
pub(super) fn write(folder: &Path) -> Result<()> {
    let mut source = String::from("#include <stdio.h>\n#include <stdlib.h>\n#include <string.h>\n");
    for number in 0..700 {
        source += &format!(
            "struct s{number} {{ int a[{}]; struct s{number} *next; }};\n\
             static int f{number}(int x, struct s{number} *s) {{\n  int sum = x;\n  for (int i = 0; i < {}; i++) {{\n    \
             if (s->a[i] > x * {number}) sum += s->a[i]; else sum ^= i << {};\n    switch (sum & 3) {{ case 0: sum += \
             {number}; break; case 1: sum *= 3; break; default: sum -= i; }}\n  }}\n  return s->next ? sum + \
             f{number}(sum, s->next) : sum;\n}}\nint g{number}(int x) {{ struct s{number} s = {{{{x}}, 0}}; return \
             f{number}(x, &s); }}\n",
            number % 30 + 1,
            number % 30 + 1,
            number % 16
        );
    }
    std::fs::write(folder.join("large.c"), source)?;
    std::fs::write(folder.join("templates.cpp"), templates())?;
    std::fs::write(folder.join("objects.lua"), LUA)?;
    let sql = "create table t (id integer primary key, name text, value real);\n\
        with recursive n(i) as (select 1 union all select i + 1 from n where i < 150000)\n\
        insert into t select i, 'name ' || (i * 7919 % 100003), i * 0.5 from n;\n\
        create index by_name on t (name);\n\
        select count(*), sum(value) from t where name like '%77%';\n\
        select name, count(*) c from t group by substr(name, 1, 8) order by c desc, name limit 20;\n\
        update t set name = name || ' x' where id % 3 = 0;\n\
        delete from t where id % 5 = 0;\n\
        select a.name from t a join t b on a.name = b.name || ' x' order by a.name limit 10;\n\
        select group_concat(name, ',') from (select name from t order by name limit 2000);\n";
    std::fs::write(folder.join("build.sql"), sql)?;
    let perl = "my %h; for my $i (1..150000) { my $k = 'k' . ($i * 7919 % 50021); push @{$h{$k}}, \"v$i\"; }\n\
        my $n = 0; for my $k (sort keys %h) { my $s = join ',', @{$h{$k}}; $s =~ s/(\\d)(\\d)/$2$1/g; $n += length $s; }\n\
        my @w = map { { a => $_, b => [1..($_ % 7)] } } 1..60000; my $t = 0; $t += scalar @{$_->{b}} for @w;\n\
        print \"$n $t\\n\";\n";
    std::fs::write(folder.join("hashes.pl"), perl)?;
    let mut history = std::fs::File::create(folder.join("history"))?;
    for commit in 1..=400 {
        let message = format!("change {commit}");
        write!(
            history,
            "commit refs/heads/main\ncommitter a <a@b> {} +0000\ndata {}\n{message}\n",
            1_700_000_000 + commit,
            message.len()
        )?;
        for file in 0..8 {
            let text: String = (0..200)
                .map(|line| {
                    format!(
                        "line {line} of {file}: {}\n",
                        (commit * line * 31 + file) % 997
                    )
                })
                .collect();
            writeln!(
                history,
                "M 100644 inline folder{}/file{}.txt\ndata {}\n{text}",
                file % 3,
                (commit * 3 + file) % 60,
                text.len()
            )?;
        }
    }
    Ok(())
}

/// Classes and functions that the library's and their own templates are made for, many times over.
fn templates() -> String {
    let mut source = String::from(
        "#include <algorithm>\n#include <functional>\n#include <map>\n#include <memory>\n#include <string>\n\
         #include <tuple>\n#include <variant>\n#include <vector>\n\
         template <int N> struct Fold { static constexpr long value = Fold<N - 1>::value * 31 % 1000003 + N; };\n\
         template <> struct Fold<0> { static constexpr long value = 1; };\n\
         template <class... T> struct Shapes { std::variant<T...> one; std::tuple<T...> all; };\n\
         template <class T> long weigh(const std::vector<T>& list) {\n  long sum = 0;\n  \
         std::for_each(list.begin(), list.end(), [&](const T& item) { sum += item.weight(); });\n  return sum;\n}\n",
    );
    for number in 0..8 {
        source += &format!(
            "struct K{number} {{ std::string name; int n; long weight() const {{ return n * {number} + Fold<{}>::value; }}\n  \
             bool operator<(const K{number}& o) const {{ return std::tie(name, n) < std::tie(o.name, o.n); }} }};\n\
             long use{number}(int n) {{\n  std::map<K{number}, std::vector<std::unique_ptr<K{number}>>> map;\n  \
             std::vector<K{number}> list;\n  for (int i = 0; i < n; i++) {{\n    K{number} k{{std::to_string(i), i}};\n    \
             map[k].push_back(std::make_unique<K{number}>(k));\n    list.push_back(k);\n  }}\n  \
             std::sort(list.begin(), list.end());\n  \
             Shapes<int, K{number}, std::string, std::vector<K{number}>> shapes;\n  shapes.one = list;\n  \
             std::function<long(const K{number}&)> of = [&](const K{number}& k) {{ return k.weight() + (long)map[k].size(); }};\n  \
             long sum = weigh(list);\n  for (auto& k : list) sum += of(k);\n  \
             return sum + std::visit([](auto& held) {{ return (long)sizeof held; }}, shapes.one);\n}}\n",
            number + 40
        );
    }
    source
}

/// Trees, lists of tables, strings in the making, closures: all short-lived, beside a table that stays.
const LUA: &str = r#"
local function tree(depth)
  if depth == 0 then return {} end
  return { tree(depth - 1), tree(depth - 1) }
end
local function count(t) return t[1] and 1 + count(t[1]) + count(t[2]) or 1 end
local nodes = 0
for i = 1, 24 do nodes = nodes + count(tree(14)) end

local kept = {}
for i = 1, 60000 do kept["key" .. i] = { id = i, name = "name " .. i * 7919 % 100003, tags = { i % 7, i % 11 } } end
local letters = 0
for round = 1, 4 do
  for i = 1, 60000, 3 do
    local old = kept["key" .. i]
    kept["key" .. i] = { id = i, name = old.name .. "x", tags = { round, table.unpack(old.tags, 1, 2) } }
    letters = letters + #kept["key" .. i].name
  end
end

local parts = {}
for i = 1, 200000 do parts[#parts + 1] = string.format("%d:%s", i, string.rep("ab", i % 13)) end
local text = table.concat(parts, ",")
local words = 0
for word in text:gmatch("[^,:]+") do words = words + #word:upper() end

local calls = 0
for i = 1, 400000 do
  local add = function(n) return function() calls = calls + n % 3 end end
  add(i)()
end
local grown = ""
for i = 1, 3000 do grown = grown .. string.char(65 + i % 26) end
print(nodes, letters, #text, words, calls, #grown)
"#;

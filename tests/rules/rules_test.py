"""Each rule of rules.py finds what it is for in a small tree, and nothing in a tree that keeps it."""
import tempfile
import unittest
from pathlib import Path

import rules

TABLE = "base:\nio: base\nops torch: base\n"
GOOD = {
    "src/base/env.cc": '#include "base/env.h"\nauto x = std::getenv("X");\n',
    "src/io/a.cc": '#include "io/a.h"\n\n#include <vector>\n\n#include "base/error.h"\n',
    "src/ops/a.h": "#include <ATen/ATen.h>\n",
}


class RulesTest(unittest.TestCase):
    def found(self, rule, files, table=TABLE):
        with tempfile.TemporaryDirectory() as root:
            for name, text in {**GOOD, **files, "cmake/folders.txt": table}.items():
                path = Path(root, name)
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text, encoding="utf-8")
            return list(rule(rules.Tree(root)))

    def test_a_good_tree_has_no_findings(self):
        for rule in rules.RULES:
            self.assertEqual(self.found(rule, {}), [])

    def test_include_of_a_folder_that_the_table_does_not_allow(self):
        found = self.found(rules.includes, {"src/io/b.h": '// x\n  #  include "ops/a.h"\n'})
        self.assertEqual(found, ["src/io/b.h:2: 'io' may not include 'ops' (ops/a.h)"])

    def test_include_without_folder(self):
        found = self.found(rules.includes, {"src/io/b.h": '#include "a.h"\n#include "../base/env.h"\n'})
        self.assertEqual(len(found), 2)

    def test_torch_in_a_folder_without_torch(self):
        self.assertEqual(len(self.found(rules.includes, {"src/io/b.cc": "#include <c10/util/Half.h>\n"})), 1)

    def test_folder_without_line(self):
        self.assertEqual(len(self.found(rules.includes, {"src/extra/b.cc": "\n"})), 1)

    def test_circle_in_the_table(self):
        self.assertEqual(len(self.found(rules.folder_table, {}, "base: io\nio: base\nops torch: base\n")), 1)

    def test_folder_without_torch_on_one_with_torch(self):
        self.assertEqual(len(self.found(rules.folder_table, {}, "base torch:\nio: base\nops torch: base\n")), 1)

    def test_long_file(self):
        self.assertEqual(self.found(rules.lengths, {"src/io/b.cc": "\n" * 500}), [])
        self.assertEqual(len(self.found(rules.lengths, {"src/io/b.cc": "\n" * 501})), 1)

    def test_character_that_is_not_ascii(self):
        found = self.found(rules.ascii_only, {"src/io/b.cc": "\n// 2\u00d73\n"})
        self.assertEqual(found, ["src/io/b.cc:2: a character that is not ASCII; write it as an escape"])

    def test_environment_read_elsewhere(self):
        files = {"src/io/b.cc": '// getenv in a comment\nauto x = getenv("X");\n'}
        self.assertEqual(self.found(rules.environment, files), ["src/io/b.cc:2: getenv outside src/base/env.cc"])


if __name__ == "__main__":
    unittest.main()

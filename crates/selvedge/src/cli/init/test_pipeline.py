"""python3 -m unittest: the function alone, and the pipeline as it will run."""
import json, os, subprocess, tempfile, unittest

import measure

SELVEDGE = os.environ.get("SELVEDGE_BINARY", "selvedge")


class Letters(unittest.TestCase):
    def test_the_function(self):
        self.assertEqual(measure.measure({"word": "warp"}, None), {"word": "warp", "letters": 4})

    def test_the_pipeline(self):
        with tempfile.TemporaryDirectory() as data:
            words = [SELVEDGE, "run", "pipeline.yaml", "--data", data + "/data", "--input", '{"words": ["a", "bcd"]}', "-o", "json"]
            ended = subprocess.run(words, capture_output=True, text=True)
            self.assertEqual(ended.returncode, 0, ended.stderr)
            output = json.loads(ended.stdout)["output"]
            self.assertEqual([item["letters"] for item in output["letters"]], [1, 3])


if __name__ == "__main__":
    unittest.main()

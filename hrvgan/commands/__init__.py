"""Commands of `hrvgan`, by what they do. Each imports what it needs when it runs, so that --help is quick."""

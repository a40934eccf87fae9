"""What azml_dist costs against the bare tools, on the machine at hand; `python -m bench` writes the table."""
